"""What was inferred, from the log: windows by model and node, and the batches that the log commits to."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError

from coordinator.audit.explain import Links
from coordinator.core import events as ev
from coordinator.core.inference import InferenceBatch, InferenceWindow
from coordinator.wire.events import event_from_proto
from coordinator.wire.inference import windows_from_proto
from coordinator.wire.values import REASON_FROM_PROTO
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, ModelRef, NodeId, parse_model
from hivefold.log.port import ReadableLog, Stored
from hivefold.oip.digests import DIGEST_BYTES
from hivefold.sketch import DurationSketch
from hivefold.v1 import audit_pb2

SUBJECT: Final = "log.inference"
_GAPS: Final = 100
"""Missing batches, and altered ones, that are named; more are counted."""


class Contents(Protocol):
    """Where batches are kept."""

    def inference_batches(self, positions: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """Position and bytes of those that are there, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; empty names, and version 0, stand for all."""

    model: str = ""
    version: int = 0
    node_id: str = ""

    def wants(self, node_id: NodeId, model: ModelRef) -> bool:
        """Whether this is it."""
        name, version = parse_model(model) or ("", 0)
        return (
            (not self.node_id or node_id == self.node_id)
            and (not self.model or name == self.model)
            and (not self.version or version == self.version)
        )


class Request(NamedTuple):
    """One request of a model whose audit is full; digests and salt in hex, empty where there is no digest."""

    time_us: int
    node_id: NodeId
    model: ModelRef
    model_digest: Digest
    caller: str
    duration_us: int
    reason: Reason | None
    input_digest: str
    output_digest: str
    salt: str
    position: int


@dataclass(slots=True)
class Share:
    """What one node inferred with one model version."""

    digest: Digest
    windows: int = 0
    first_us: int = 0
    last_us: int = 0
    requests: int = 0
    rows: int = 0
    failures: Counter[Reason] = field(default_factory=Counter)
    durations: DurationSketch = field(default_factory=DurationSketch)
    batches: Counter[int] = field(default_factory=Counter)
    full: bool = False
    unrecorded: int = 0
    recorded: int = 0
    """Requests found in batches that were looked at."""

    def add(self, window: InferenceWindow) -> None:
        """One more window."""
        self.windows += 1
        self.first_us = min(self.first_us or window.start_time_us, window.start_time_us)
        self.last_us = max(self.last_us, window.start_time_us + window.span_us)
        self.requests += window.request_count
        self.rows += window.row_count
        self.failures.update(dict(window.failures))
        self.durations.merge(window.sketch())
        self.batches.update(dict(window.batches))
        self.full = self.full or window.full
        self.unrecorded += window.unrecorded_count


@dataclass(slots=True)
class Report:
    """What the log says, and how far the batches bear it out."""

    shares: dict[tuple[ModelRef, NodeId], Share] = field(default_factory=dict)
    windows: deque[tuple[NodeId, InferenceWindow]] = field(default_factory=deque)
    requests: deque[Request] = field(default_factory=deque)
    batches: int = 0
    missing: list[tuple[NodeId, BootId, int, int]] = field(default_factory=list)
    """Batches that the log does not name though later ones of the same boot: node, boot, first and last number."""
    missing_count: int = 0
    verified: int = 0
    gone: int = 0
    """Batches that are no longer kept: the log still holds their windows and digests."""
    gone_requests: int = 0
    altered: list[InferenceBatch] = field(default_factory=list)
    altered_count: int = 0


class Auditor:
    """Takes records in order, from any position on. Keeps the last `limit` windows and requests."""

    def __init__(self, selection: Selection, *, limit: int, contents: Contents | None, whole: bool) -> None:
        """`contents` is where batches are looked at; None where they are not. `whole`: from record 1 on."""
        self.report = Report(windows=deque(maxlen=limit), requests=deque(maxlen=limit))
        self._selection = selection
        self._contents = contents
        self._whole = whole
        self._links = Links()
        self._last: dict[tuple[NodeId, BootId], int] = {}

    async def take(self, page: Sequence[Stored]) -> None:
        """The next records. Raises LogCorruptError when one does not follow from the one before."""
        wanted: list[InferenceBatch] = []
        for stored in page:
            message = self._links.take(stored)
            if stored.subject != SUBJECT:
                continue
            for event in message.events:
                known = event_from_proto(event, stored.sequence)
                if isinstance(known, ev.InferencesRecorded):
                    wanted += filter(self._count, known.batches)
        if self._contents is not None and wanted:
            await self._look_at(wanted, self._contents)

    def _count(self, batch: InferenceBatch) -> bool:
        """Counts a batch in; whether it is asked for. One of a number that was counted before counts once."""
        report, selection = self.report, self._selection
        if selection.node_id and batch.node_id != selection.node_id:
            return False
        boot = batch.node_id, batch.boot_id
        before = self._last.get(boot, 0 if self._whole else batch.number - 1)
        if batch.number <= before:
            return False
        self._last[boot] = batch.number
        if batch.number > before + 1:
            report.missing_count += batch.number - before - 1
            if len(report.missing) < _GAPS:
                report.missing.append((*boot, before + 1, batch.number - 1))
        report.batches += 1
        for window in batch.windows:
            if selection.wants(batch.node_id, window.model):
                self._share(batch.node_id, window.model, window.model_digest).add(window)
                report.windows.append((batch.node_id, window))
        return True

    def _share(self, node_id: NodeId, model: ModelRef, digest: Digest) -> Share:
        return self.report.shares.setdefault((model, node_id), Share(digest))

    async def _look_at(self, batches: Sequence[InferenceBatch], contents: Contents) -> None:
        """Checks each batch against the log, and takes the requests from it."""
        report = self.report
        waiting = {batch.position: batch for batch in batches}
        async for position, data in contents.inference_batches(list(waiting)):
            batch = waiting.pop(position, None)
            if batch is None:
                continue
            stored = verified(batch, data)
            if stored is None:
                report.altered_count += 1
                if len(report.altered) < _GAPS:
                    report.altered.append(batch)
                continue
            report.verified += 1
            for request in requests_of(batch, stored.requests):
                if self._selection.wants(request.node_id, request.model):
                    self._share(request.node_id, request.model, request.model_digest).recorded += 1
                    report.requests.append(request)
        report.gone += len(waiting)
        report.gone_requests += sum(batch.request_count for batch in waiting.values())


def verified(batch: InferenceBatch, data: bytes) -> audit_pb2.InferenceBatch | None:
    """The batch in `data`; None when these are not the bytes that the log commits to, or it says something else."""
    if hashlib.sha256(data).hexdigest() != batch.digest:
        return None
    stored = audit_pb2.InferenceBatch()
    try:
        stored.ParseFromString(data)
    except DecodeError:
        stored.Clear()
    if not batch.windows and not batch.request_count:
        return stored  # not usable, as the log says, or nothing in it
    says = (stored.node_id, stored.boot_id, stored.number, len(stored.requests.durations_us))
    if says != (batch.node_id, batch.boot_id, batch.number, batch.request_count):
        return None
    return stored if windows_from_proto(stored.windows) == batch.windows else None


def requests_of(batch: InferenceBatch, columns: audit_pb2.InferenceRequests) -> Iterator[Request]:
    """The requests of a batch; what a node did not fill in is empty."""
    salt = columns.salt.hex()
    for index, (time_us, duration_us, model, caller, reason) in enumerate(
        zip(
            accumulate(columns.time_steps_us),
            columns.durations_us,
            columns.model_indexes,
            columns.caller_indexes,
            columns.reasons,
            strict=False,
        )
    ):
        yield Request(
            time_us,
            batch.node_id,
            ModelRef(_entry(columns.models, model)),
            Digest(_entry(columns.model_digests, model)),
            _entry(columns.callers, caller),
            duration_us,
            REASON_FROM_PROTO.get(reason, Reason.UNSPECIFIED) if reason else None,
            _digest(columns.input_digests, index),
            _digest(columns.output_digests, index),
            salt,
            batch.position,
        )


def _entry(values: Sequence[str], index: int) -> str:
    return values[index] if index < len(values) else ""


def _digest(column: bytes, index: int) -> str:
    digest = column[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
    return digest.hex() if any(digest) else ""


async def audit_inference(
    log: ReadableLog, auditor: Auditor, *, after: int, up_to: int, progress: Callable[[int], None] | None = None
) -> Report:
    """What the records after `after` and up to `up_to` say. Raises LogCorruptError."""
    async for page in log.read(after=after, up_to=up_to):
        await auditor.take(page)
        if progress is not None:
            progress(page[-1].sequence)
    return auditor.report
