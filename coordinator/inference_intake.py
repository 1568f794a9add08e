"""Has what nodes inferred recorded: about once a second a record with the windows and digests of their batches.

The batches stay in their stream; the log commits to their bytes. A batch is acknowledged once it is recorded, and the
state knows up to which position that is, so that one that comes again is passed over.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from coordinator.core.commands import RecordInferences
from coordinator.core.inference import InferenceBatch, InferenceWindow
from coordinator.wire.inference import windows_from_proto
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import ResultMessage, ResultReceiver
from hivefold.errors import LimitExceededError, NotLeaderError, UnavailableError
from hivefold.ids import BootId, Digest, NodeId, is_digest, is_name, parse_model
from hivefold.oip.limits import (
    AUDIT_BATCH_REQUESTS,
    AUDIT_BATCH_WINDOWS,
    AUDIT_GATHER_BYTES,
    AUDIT_GATHER_S,
    AUDIT_SUMMARY_BYTES,
)
from hivefold.sketch import MOST_BUCKETS
from hivefold.v1 import audit_pb2

_log = structlog.get_logger(__name__)
_SUBJECT: Final = re.compile(r"inference\.(?P<node>[^.]+)\.(?P<boot>[^.]+)\.(?P<number>[0-9]{1,15})")
_SIZES: Final = 64
_YEAR_10000_US: Final = 253_402_300_800_000_000  # from then on a time has no text


class InferenceIntake:
    """Carries batches from their stream to the writer."""

    def __init__(self, writer: Writer, batches: ResultReceiver) -> None:
        self._writer = writer
        self._batches = batches

    async def run(self) -> None:
        """Records batches until it is cancelled. Raises NotLeaderError."""
        async for messages in self._batches.batches():
            async for part in _parts(messages):
                await self._record(part)
            await self._batches.acknowledge(messages[-1].sequence)
            if not _is_much(messages):
                # What comes meanwhile is recorded together.
                await asyncio.sleep(AUDIT_GATHER_S)

    async def _record(self, batches: tuple[InferenceBatch, ...]) -> None:
        while True:
            try:
                await self._writer.execute(RecordInferences(batches))
            except NotLeaderError:
                raise
            except (UnavailableError, LimitExceededError) as error:
                _log.warning("inference not recorded, trying again", reason=error.reason, error=str(error))
                await asyncio.sleep(limits.RESEND_DELAY_S)
            else:
                return


def _is_much(messages: Sequence[ResultMessage]) -> bool:
    """Whether as much came as is pulled at once: then more waits, and a pause would let it grow."""
    size = sum(len(message.data) for message in messages)
    return 2 * len(messages) > limits.PULL_MESSAGES or 2 * size > limits.PULL_BYTES


async def _parts(messages: Sequence[ResultMessage]) -> AsyncIterator[tuple[InferenceBatch, ...]]:
    """The batches, as many at once as one record should hold."""
    part: list[InferenceBatch] = []
    size = 0
    for message in messages:
        found = read_batch(message)
        await asyncio.sleep(0)  # one of thousands of requests takes milliseconds
        if found is None:
            _log.error("foreign message in the stream of inference passed over", subject=message.subject)
            continue
        batch, summary_bytes = found
        if part and size + summary_bytes > AUDIT_GATHER_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(batch)
        size += summary_bytes
    if part:
        yield tuple(part)


def read_batch(message: ResultMessage) -> tuple[InferenceBatch, int] | None:
    """What the log says of a batch, and about how many bytes that takes; None where its subject names none.

    The subject says whose batch it is: the broker checked it. One whose body is not what a node writes is recorded
    with its digest alone: whoever reads it sees what it is.
    """
    subject = _SUBJECT.fullmatch(message.subject)
    if subject is None or not (is_name(subject["node"]) and is_name(subject["boot"])):
        return None
    names = (subject["node"], subject["boot"], int(subject["number"]))
    batch = audit_pb2.InferenceBatch()
    windows: tuple[InferenceWindow, ...] = ()
    try:
        batch.ParseFromString(message.data)
        windows = windows_from_proto(batch.windows)
        usable = (batch.node_id, batch.boot_id, batch.number) == names and _are_usable(batch, windows)
    except (DecodeError, ValueError):
        usable = False
    if not usable:
        _log.error("batch of inference not usable", subject=message.subject, sequence=message.sequence)
        batch, windows = audit_pb2.InferenceBatch(), ()
    summary = InferenceBatch(
        NodeId(names[0]),
        BootId(names[1]),
        names[2],
        message.sequence,
        Digest(hashlib.sha256(message.data).hexdigest()),
        len(message.data),
        len(batch.requests.durations_us),
        windows,
    )
    return summary, 256 + sum(window.ByteSize() for window in batch.windows)


def _are_usable(batch: audit_pb2.InferenceBatch, windows: Sequence[InferenceWindow]) -> bool:
    """Whether a record can hold the windows many times over, and they are what a node writes."""
    return (
        len(windows) <= AUDIT_BATCH_WINDOWS
        and len(batch.requests.durations_us) <= AUDIT_BATCH_REQUESTS
        and sum(window.ByteSize() for window in batch.windows) <= AUDIT_SUMMARY_BYTES
        and all(
            parse_model(window.model) is not None
            and is_digest(window.model_digest)
            and 0 <= window.start_time_us < _YEAR_10000_US
            and len(window.durations) <= MOST_BUCKETS
            and len(window.batches) <= _SIZES
            for window in windows
        )
    )
