"""One model version as this node serves it: requests in, batches to its actors, answers out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from actors.batching import Batch, BatchPolicy, BatchQueue, Waiting
from actors.signature import Fitted, Signature
from actors.together import Answer, Batched, InferBatch, Together
from hivefold.clock import Clock, stopwatch_ns
from hivefold.errors import HivefoldError, LimitExceededError, Reason, UnavailableError
from hivefold.oip.limits import BATCH_MS, RETRY_MAX_MS, RETRY_MS
from hivefold.oip.requests import InferRequest
from hivefold.oip.responses import ResponseWriter
from hivefold.v1 import model_pb2
from node.models import ModelShelf, Place
from node.serving.audit import ModelAudit
from node.serving.quick import Quick, can_be_quick
from node.serving.statistics import Tally

_log = structlog.get_logger(__name__)
_NO_ROOM: Final = frozenset({Reason.NODE_FULL, Reason.OUT_OF_MEMORY})
_HEAVY_NS: Final = 2_000_000
"""From this time in the runtime on several batches of a model run at once, and none waits for company: a lane that
does nothing costs more than batches save. Below, one lane with larger batches wins."""


@dataclass(slots=True)
class _Asked:
    """A request as it waits: its answer goes into `answered`."""

    fitted: Fitted
    place: Place
    answered: asyncio.Future[Answer]


class ServedModel:
    """Serves one model version, from any of the fleet's names for it. MUST be used on one event loop."""

    def __init__(
        self,
        model: model_pb2.Model,
        signature: Signature,
        shelf: ModelShelf,
        *,
        policy: BatchPolicy,
        tally: Tally,
        clock: Clock,
        lanes: int,
        audit: ModelAudit | None = None,
    ) -> None:
        self.model = model
        self.digest = model.digest
        self.kept = True
        """Whether requests for the model still come here."""
        self.signature = signature
        self.tally = tally
        self._writer = ResponseWriter(model.name, str(model.version))
        self._shelf = shelf
        self._clock = clock
        self._lanes = lanes
        self.audit = audit
        """Where what is inferred is noted; None where nothing is."""
        self._queue: BatchQueue[_Asked] = BatchQueue(policy)
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._at_it = 0
        """1 while the loop is at a turn in which a request was answered at once."""
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._usual_ns = 0
        """What a batch usually takes in the runtime."""
        self._quick = Quick() if can_be_quick(signature) else None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        """Requests that wait."""
        return self._queue.requests

    async def infer(
        self,
        request: InferRequest,
        deadline_us: int,
        caller: Callable[[], str] = lambda: "",
        like: Fitted | None = None,
        elsewhere: Callable[[], Awaitable[bytes | None]] | None = None,
    ) -> bytes:
        """The response to a request; `deadline_us` is of hivefold.clock.stopwatch_ns, `caller` tells who asked.

        `like` is what was found of a request that differs in nothing but the bytes of its one input. Where there is no
        room for the model here, the response is that of `elsewhere`, unless there is none either.
        Raises HivefoldError: what does not fit the model, LIMIT_EXCEEDED when too many wait, DEADLINE_EXCEEDED.
        """
        arrived_ns = stopwatch_ns()
        arrived_us = self._clock.now_us()
        tally = self.tally
        tally.last_ms = arrived_us // 1000
        try:
            fitted = self.signature.fit(request) if like is None else like.with_bytes(request.inputs[0].data)
            place = self._shelf.held(self.digest) or await self._shelf.take(self.model)
            try:
                answer = self._at_once(fitted, place) if arrived_ns < 1000 * deadline_us else None
                if answer is None:
                    waiting = self._line_up(request, fitted, place, arrived_ns // 1000, deadline_us)
                    try:
                        answer = await waiting.what.answered
                    except asyncio.CancelledError:
                        waiting.gone = True
                        raise
            finally:
                self._shelf.give(place)
            if isinstance(answer, HivefoldError):
                raise answer
        except (HivefoldError, asyncio.CancelledError) as error:
            if elsewhere is not None and self._has_no_room(error) and (passed := await elsewhere()) is not None:
                return passed
            took_ns = stopwatch_ns() - arrived_ns
            tally.fail.add(1, took_ns)
            if self.audit is not None:
                self.audit.failed(request.inputs, error, caller=caller, arrived_us=arrived_us, took_ns=took_ns)
            raise
        took_ns = stopwatch_ns() - arrived_ns
        rows = fitted.feed.rows
        tally.success.add(1, took_ns)
        tally.rows += rows
        names = self.signature.described(fitted.outputs)
        if self.audit is not None:
            self.audit.succeeded(
                request.inputs, names, answer, rows=rows, caller=caller, arrived_us=arrived_us, took_ns=took_ns
            )
        return self._writer.write(request.id, names, answer, final=request.mark_final)

    def _has_no_room(self, error: BaseException) -> bool:
        """Whether a request failed because its model was not let in: not one that took the memory itself."""
        return isinstance(error, HivefoldError) and error.reason in _NO_ROOM and not self._shelf.has(self.digest)

    def _at_once(self, fitted: Fitted, place: Place) -> Answer | None:
        """The answer to a request that nobody keeps company and that takes next to no time; None for all others."""
        queue, direct, rows = self._queue, place.direct, fitted.feed.rows
        if (
            direct is None
            or self._at_it
            or self._running
            or self._quick is None
            or not self._quick.allows(rows, fitted.size_bytes)
            or not queue.pass_by()
        ):
            return None
        # Who comes in with the same wake-up of the loop shall not be passed over as company.
        self._at_it = 1
        self._loop.call_soon(self._be_done)
        try:
            reply = direct.run(InferBatch((fitted.feed,), fitted.outputs))
        except Exception as error:  # noqa: BLE001 - the caller is told, and the actor has the model back
            return self._defect(error)
        self.tally.queue.add(1, 0)
        self.tally.add_batch(rows, 1, reply)
        if self.audit is not None:
            self.audit.ran(rows)
        self._learn(rows, reply, here=True)
        return reply.answers[0]

    def _be_done(self) -> None:
        self._at_it = 0

    def _line_up(
        self, request: InferRequest, fitted: Fitted, place: Place, arrived_us: int, deadline_us: int
    ) -> Waiting[_Asked]:
        """Puts a request in the queue, and sees to it that this is looked at. Raises LimitExceededError."""
        if request.timeout_us:
            deadline_us = min(deadline_us, arrived_us + request.timeout_us)
        asked = _Asked(fitted, place, self._loop.create_future())
        waiting = Waiting(
            asked, fitted.shape, fitted.feed.rows, fitted.size_bytes, arrived_us, deadline_us, request.priority
        )
        if not self._queue.offer(waiting, self._queue.running + self._at_it):
            raise self._busy()
        if not self._woken and self._running < self._most and (self._timer is None or self._queue.filled):
            # Not at once: what came in with the same wake-up of the loop shall share the batch.
            self._woken = True
            self._loop.call_soon(self._dispatch)
        return waiting

    @property
    def _most(self) -> int:
        """Batches at once."""
        return self._lanes if self._queue.heavy else 1

    def _dispatch(self) -> None:
        """Starts what is due."""
        self._woken = False
        while self._queue.requests and self._running < self._most:
            now_us = stopwatch_ns() // 1000
            # Shared with the lanes that are busy, too: one that ends its batch shall not find everything taken.
            batch = self._queue.take(now_us, self._most)
            for over in batch.expired:
                _settle(over.what, _expired())
            if not batch.requests:
                if self._queue.requests:
                    self._wake_in(self._queue.due_us() - now_us)
                return
            direct = self._direct(batch)
            if direct is not None:
                self._run_here(direct, batch, now_us)
                continue
            self._running += 1
            self._queue.running += len(batch.requests)
            task = self._loop.create_task(self._run(batch, now_us))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _wake_in(self, after_us: int) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(max(0, after_us) / 1e6, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()

    def _direct(self, batch: Batch[_Asked]) -> Together | None:
        """What runs the batch here and now; None when its actor shall."""
        direct = batch.requests[0].what.place.direct
        if self._quick is None or direct is None:
            return None
        rows = size_bytes = 0
        for waiting in batch.requests:
            rows += waiting.rows
            size_bytes += waiting.size_bytes
        return direct if self._quick.allows(rows, size_bytes) else None

    def _run_here(self, direct: Together, batch: Batch[_Asked], began_us: int) -> None:
        requests = batch.requests
        message = InferBatch(tuple([waiting.what.fitted.feed for waiting in requests]), requests[0].what.fitted.outputs)
        try:
            reply = direct.run(message)
        except Exception as error:  # noqa: BLE001 - as below
            self._broke(batch, error)
            return
        for waiting, answer in zip(requests, reply.answers, strict=True):
            _settle(waiting.what, answer)
        self._note(batch, reply, began_us, here=True)

    def _broke(self, batch: Batch[_Asked], error: Exception) -> None:
        broken = self._defect(error)
        for waiting in batch.requests:
            _settle(waiting.what, broken)

    def _defect(self, error: Exception) -> HivefoldError:
        self._quick = None
        self._queue.hurried = False
        _log.error("batch.broke", model=self.model.name, exc_info=error)
        return HivefoldError(f"the node broke on the request: {error!r}; please report it")

    async def _run(self, batch: Batch[_Asked], began_us: int) -> None:
        first = batch.requests[0].what
        message = InferBatch(tuple([waiting.what.fitted.feed for waiting in batch.requests]), first.fitted.outputs)
        try:
            reply = await self._shelf.run(first.place, message, deadline_ms=BATCH_MS)
            assert isinstance(reply, Batched)
        except HivefoldError as error:
            for waiting in batch.requests:
                _settle(waiting.what, error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the batch must hear of it
            self._broke(batch, error)
        else:
            for waiting, answer in zip(batch.requests, reply.answers, strict=True):
                _settle(waiting.what, answer)
            self._note(batch, reply, began_us)
        finally:
            self._running -= 1
            self._queue.running -= len(batch.requests)
            self._dispatch()

    def _note(self, batch: Batch[_Asked], reply: Batched, began_us: int, *, here: bool = False) -> None:
        requests = batch.requests
        rows = sum([waiting.rows for waiting in requests])
        waited_us = sum([began_us - waiting.arrived_us for waiting in requests])
        self.tally.queue.add(len(requests), waited_us * 1000)
        self.tally.add_batch(rows, len(requests), reply)
        if self.audit is not None:
            for size in (rows,) if reply.runs == 1 else [waiting.rows for waiting in requests]:
                self.audit.ran(size)
        self._learn(rows, reply, here=here)
        if reply.apart and self._queue.policy.max_rows > 1:
            _log.warning("model.mixes_rows", model=self.model.name, version=self.model.version)
            self._queue.policy = one_by_one(self._queue.policy)

    def _learn(self, rows: int, reply: Batched, *, here: bool) -> None:
        self._usual_ns += (reply.infer_ns - self._usual_ns) // 8
        self._queue.heavy = self._usual_ns > _HEAVY_NS
        if self._quick is not None and reply.runs == 1:
            self._quick.note(rows, reply.infer_ns, here=here)
            self._queue.hurried = self._quick.allows(rows, 0)

    def _busy(self) -> LimitExceededError:
        policy = self._queue.policy
        batches = self._queue.rows // max(1, policy.max_rows) + 1
        retry_ms = min(RETRY_MAX_MS, max(RETRY_MS, batches * self._usual_ns // 1_000_000))
        return LimitExceededError(
            f"{self._queue.requests} requests wait for {self.model.name}, the most that may; "
            f"try again in {retry_ms} ms, or ask another node",
            reason=Reason.SERVER_BUSY,
            metadata={"limit": str(policy.queue_requests), "retry_ms": str(retry_ms)},
        )


def one_by_one(policy: BatchPolicy) -> BatchPolicy:
    """The policy without batches."""
    return BatchPolicy(max_rows=1, max_bytes=1, queue_requests=policy.queue_requests, queue_bytes=policy.queue_bytes)


def _settle(asked: _Asked, answer: Answer) -> None:
    if not asked.answered.done():
        asked.answered.set_result(answer)


def _expired() -> UnavailableError:
    return UnavailableError(
        "the request's time was over before the model was free; allow more, or send less at once",
        reason=Reason.DEADLINE_EXCEEDED,
    )
