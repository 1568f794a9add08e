"""Answers inference requests: finds the model, runs it here, or passes the request to the node that should."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol

import structlog

from actors.signature import Fitted, Signature
from hivefold.clock import Clock, stopwatch_ns
from hivefold.errors import HivefoldError, Reason, UnavailableError
from hivefold.models import TensorFacts
from hivefold.oip.audit import AUDIT_LABEL, Level
from hivefold.oip.limits import STATISTICS_MODELS
from hivefold.oip.repeated import Head
from hivefold.oip.requests import Addressed, InferRequest, open_request
from hivefold.v1 import model_pb2
from node.models import ModelShelf
from node.serving.audit import Audited, Ledger, ModelAudit
from node.serving.catalogue import Catalogue
from node.serving.peers import Peer, Peers
from node.serving.policy import audit_level, batch_policy
from node.serving.served import ServedModel
from node.serving.statistics import Statistics
from node.wire import data_type_name

_log = structlog.get_logger(__name__)
FORWARDED: Final = "hivefold-forwarded"
"""Metadata of a request that another node passed on: it is served here or refused, never passed on again.

Its value is the node, and after a blank who asked there where the model's audit is full."""
_FULL: Final = frozenset({Reason.SERVER_BUSY, Reason.NODE_FULL, Reason.OUT_OF_MEMORY})
_NO_ANSWER: Final = _FULL | {Reason.SERVER_UNAVAILABLE, Reason.NODE_LOST}
"""After these another node is asked: the request was not run, or its answer is lost and it may be run again."""


class Route(NamedTuple):
    """Where requests with one head go while their name stands for `model`, and how they fit it."""

    model: model_pb2.Model
    served: ServedModel
    like: Fitted


class PassOn(Protocol):
    """Sends a request to another node."""

    async def call(self, target: str, data: bytes, *, timeout_s: float, mark: tuple[str, str]) -> bytes:
        """The response. Raises HivefoldError."""
        ...


@dataclass(slots=True)
class Inference:
    """The inference of one node."""

    node_id: str
    catalogue: Catalogue
    shelf: ModelShelf
    peers: Peers
    passing: PassOn
    clock: Clock
    lanes: int
    free_bytes: Callable[[], int]
    """Memory that could be given to a model now; 0 when it is not known."""
    ledger: Ledger | None = None
    """Where what is inferred is noted for the audit."""
    statistics: Statistics = field(default_factory=Statistics)
    in_hand: int = 0
    """Requests that are being answered."""
    _served: dict[str, ServedModel] = field(default_factory=dict)

    async def infer(
        self,
        asked: Addressed,
        data: bytes,
        *,
        deadline_us: int,
        forwarded: Callable[[], bool],
        caller: Callable[[], str] = lambda: "",
    ) -> bytes:
        """The response to a ModelInferRequest, both as bytes; `asked` is what `address(data)` gave.

        `deadline_us` is of hivefold.clock.stopwatch_ns; `forwarded` tells whether another node passed the request on,
        `caller` who asked, and both are asked only where that counts. Raises HivefoldError.
        """
        self.in_hand += 1
        try:
            model = self.catalogue.known(asked.model_name, asked.model_version) or await self.catalogue.find(
                asked.model_name, asked.model_version
            )
            elsewhere: Callable[[], Awaitable[bytes | None]] | None = None
            if not self.shelf.has(model.digest) and not forwarded():
                tried: set[str] = set()
                passed = await self._passed(model, data, deadline_us, caller, tried)
                if passed is not None:
                    return passed
                elsewhere = partial(self._passed, model, data, deadline_us, caller, tried, room=False)
            served = self.served(model)
            return await served.infer(self._opened(asked, served, caller), deadline_us, caller, elsewhere=elsewhere)
        finally:
            self.in_hand -= 1

    def route(self, head: Head) -> Route | None:
        """Where a request with this head is served now, without asking anybody; None: `infer` finds out."""
        request = head.request
        model = self.catalogue.known(request.model_name, request.model_version)
        if model is None:
            return None
        known: Route | None = head.route
        if known is None or known.model is not model or not known.served.kept:
            served = self.served(model)
            try:
                known = head.route = Route(model, served, served.signature.fit(request))
            except HivefoldError:
                return None
        return known if self.shelf.has(known.served.digest) else None

    async def along(self, route: Route, request: InferRequest, deadline_us: int, caller: Callable[[], str]) -> bytes:
        """The response to a request with the head of `route`, as `infer`. Raises HivefoldError."""
        self.in_hand += 1
        try:
            return await route.served.infer(request, deadline_us, caller, route.like)
        finally:
            self.in_hand -= 1

    def served(self, model: model_pb2.Model) -> ServedModel:
        """The model as it is served here; it is loaded by its first request."""
        key = f"{model.name}@{model.version}"
        served = self._served.get(key)
        if served is None:
            if len(self._served) >= STATISTICS_MODELS:
                self._served.pop(next(iter(self._served))).kept = False
            signature = Signature(_facts(model.inputs), _facts(model.outputs))
            policy = batch_policy(model.labels, batchable=signature.batchable)
            tally = self.statistics.of(model.name, model.version)
            served = ServedModel(
                model,
                signature,
                self.shelf,
                policy=policy,
                tally=tally,
                clock=self.clock,
                lanes=self.lanes,
                audit=self._audit_of(model),
            )
            self._served[key] = served
        return served

    def states(self) -> Iterator[tuple[str, bool]]:
        """Of the models that were served here: name, name@version, and whether it is loaded now."""
        latest: dict[str, tuple[int, bool]] = {}
        for reference, served in self._served.items():
            model, loaded = served.model, self.shelf.has(served.model.digest)
            yield reference, loaded
            latest[model.name] = max(latest.get(model.name, (0, False)), (model.version, loaded))
        for name, (_, loaded) in latest.items():
            yield name, loaded

    async def load(self, model: model_pb2.Model) -> None:
        """Loads the model here. Raises HivefoldError."""
        self.served(model)
        self.shelf.give(await self.shelf.take(model))

    def _audit_of(self, model: model_pb2.Model) -> ModelAudit | None:
        level = audit_level(model.labels)
        if self.ledger is None or level is Level.NONE:
            return None
        return ModelAudit(Audited(f"{model.name}@{model.version}", model.digest, level is Level.FULL), self.ledger)

    def _opened(self, asked: Addressed, served: ServedModel, caller: Callable[[], str]) -> InferRequest:
        """The request, read. What cannot be read counts among the failures of its model, too."""
        try:
            return open_request(asked)
        except HivefoldError as error:
            if served.audit is not None:
                served.audit.failed((), error, caller=caller, arrived_us=self.clock.now_us(), took_ns=0)
            raise

    async def _passed(
        self,
        model: model_pb2.Model,
        data: bytes,
        deadline_us: int,
        caller: Callable[[], str],
        tried: set[str],
        *,
        room: bool = True,
    ) -> bytes | None:
        """Another node's response; None when the request is best served here. Who could not is added to `tried`.

        Without `room` here it is asked for wherever the model may fit.
        """
        mark = (
            FORWARDED,
            f"{self.node_id} {caller()}" if model.labels.get(AUDIT_LABEL) == Level.FULL else self.node_id,
        )
        while True:
            peer = self._elsewhere(model, tried, room=room)
            if peer is None:
                return None
            left_s = (deadline_us * 1000 - stopwatch_ns()) / 1e9
            if left_s <= 0:
                raise UnavailableError("the request's time is over; allow more", reason=Reason.DEADLINE_EXCEEDED)
            peer.sent += 1
            try:
                return await self.passing.call(peer.address, data, timeout_s=left_s, mark=mark)
            except HivefoldError as error:
                if error.reason not in _NO_ANSWER:
                    raise
                _log.info("peer.passed_over", node=peer.node_id, reason=error.reason.value)
                tried.add(peer.node_id)
                if error.reason not in _FULL:
                    self.peers.shun(peer, self.clock.monotonic_ms())
            finally:
                peer.sent -= 1

    def _elsewhere(self, model: model_pb2.Model, tried: set[str], *, room: bool) -> Peer | None:
        now_ms = self.clock.monotonic_ms()
        peer = self.peers.holding(model.digest, now_ms, tried)
        if peer is not None:
            return peer
        needed = self.shelf.expected_bytes(model)
        free = self.free_bytes()
        return self.peers.with_room(needed, now_ms, tried) if not room or 0 < free < needed else None


def _facts(specs: Iterable[model_pb2.TensorSpec]) -> tuple[TensorFacts, ...]:
    return tuple(TensorFacts(spec.name, data_type_name(spec.data_type), tuple(spec.shape)) for spec in specs)
