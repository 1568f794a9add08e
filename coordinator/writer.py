"""The single writer: decide, append, evolve, and only then answer and act.

Group commit: what waited while the last batch was in flight is decided together, each decision upon the
tentative state left by those before it, and appended as one atomic batch. A batch that fails is dropped
with its tentative state. Timer commands that are due (placement, deadlines) join the same batch, so a job
is accepted and placed with one fsync.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from coordinator.batch import Accepted, Batch
from coordinator.core.commands import CloseSegment, CommandBody, EndTerm, ExpireJobs, OpenSegment, PlaceTasks, StartTerm
from coordinator.core.model import Job, Rejected, State
from coordinator.core.plan import due, next_retry_us
from coordinator.endings import Endings
from coordinator.followers import Committed, Follower, Followers
from coordinator.replay import Replayed
from hivefold import limits, observe
from hivefold.clock import Clock
from hivefold.entropy import Entropy
from hivefold.errors import FencedError, LimitExceededError, NotLeaderError, UnavailableError
from hivefold.failpoints import Failpoint, reach
from hivefold.log.port import EventLog, Head
from hivefold.proof.merkle import CompactRange, RangeBuilder

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A command that waits for the writer."""

    body: CommandBody
    traceparent: str
    answer: asyncio.Future[Accepted | Rejected]


@dataclass(frozen=True, slots=True)
class _Unplaceable:
    """No waiting task finds room in `state` (the very object), nor will one before `until_us`, if then."""

    state: State
    until_us: int | None


_Answer: TypeAlias = tuple[_Waiting, Accepted | Rejected | LimitExceededError]


class Writer:
    """The only one that appends. `run` MUST be running for `execute` to answer."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        entropy: Entropy,
        start: Replayed,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_act` says whether this process may still be the leader; the log's fence holds whatever it says."""
        self._log = log
        self._may_act = may_act
        self._clock = clock
        self._entropy = entropy
        self._state = start.state
        self._head_hash = start.head_hash
        builder = RangeBuilder(start.tree)
        self._tree: Callable[[], CompactRange] = builder.range
        self._grow: Callable[[Iterable[bytes]], None] | None = builder.extend
        self._folded_bytes = start.folded_bytes
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._followers = Followers()
        self._endings = Endings()
        self._acts: list[Callable[[Sequence[Committed]], None]] = []
        self._prepares: list[Callable[[Sequence[Committed]], None]] = []
        self._unplaceable: _Unplaceable | None = None
        self._stopped: Exception | None = None
        self._ending = False
        self._doubted = False
        self._segment_closed = False
        """Whether the last record closed a segment: then nothing but the opening of the next one may follow."""
        self._time_us = start.state.time_us
        self._time_read_ms = clock.monotonic_ms()

    @property
    def state(self) -> State:
        """The durable state."""
        return self._state

    @property
    def head_hash(self) -> bytes:
        """Hash of the last durable record."""
        return self._head_hash

    @property
    def leading(self) -> bool:
        """Whether this writer may append now."""
        return self._stopped is None and self._state.term > 0 and self._may_act()

    @property
    def ended(self) -> bool:
        """Whether this writer has stopped for good."""
        return self._stopped is not None

    @property
    def folded(self) -> Replayed:
        """The durable state with all that a replay could go on from."""
        return Replayed(self._state, self._head_hash, self._tree(), self._folded_bytes)

    @property
    def folded_bytes(self) -> int:
        """Bytes of the records that led here, from record 1 or a snapshot on."""
        return self._folded_bytes

    def follow(self) -> Follower:
        """Follows what is committed from now on."""
        return self._followers.follow()

    def follow_after(self, sequence: int) -> Follower | None:
        """Follows what was committed after a position; None when only the log still has it."""
        return self._followers.follow_after(sequence)

    async def until_final(self, job: Job, within_s: float) -> Job:
        """The job once it has ended; as it is after `within_s` seconds, or when the writer stops before."""
        known = self._state.jobs.get(job.job_id) or job
        if known.state.final or self._stopped is not None:
            return known
        ended = await self._endings.wait(job.job_id, within_s)
        return ended or self._state.jobs.get(job.job_id) or known

    def leave_tree_to(self, tree: Callable[[], CompactRange]) -> None:
        """Whoever signs the log has the tree of its hashes: it need not be computed twice."""
        self._tree, self._grow = tree, None

    def on_commit(
        self, act: Callable[[Sequence[Committed]], None], prepare: Callable[[Sequence[Committed]], None] | None = None
    ) -> None:
        """Calls `act` with each batch after it is durable, in order. It MUST return at once.

        `prepare` gets the batch while the log stores it, for what `act` will want to have at hand: it MUST NOT do
        anything that shows outside, for the batch may never be durable.
        """
        self._acts.append(act)
        if prepare is not None:
            self._prepares.append(prepare)

    async def begin(self, coordinator_id: str, code_version: str) -> None:
        """Starts a term at the head that was replayed. Raises FencedError when another was faster."""
        await self.record(StartTerm(coordinator_id, code_version))

    async def record(self, body: CommandBody) -> None:
        """Records one command at once; nothing where nothing is to be recorded. MUST NOT meet another append."""
        batch = Batch(self._state, self._head_hash, self._now_us(), self._entropy)
        batch.add(body, "")
        if batch.records:
            await self._append(batch)

    async def end_term(self, note: str) -> None:
        """Hands over: what waits is recorded, then the end of the term; this writer stops. Raises HivefoldError."""
        self._ending = True  # nothing may come behind it
        await self.execute(EndTerm(note))
        self._stop(NotLeaderError("this coordinator has handed over; ask the one that leads now"))

    async def execute(self, body: CommandBody, *, traceparent: str = "") -> Accepted | Rejected:
        """Decides one command; answers once what was decided is durable.

        Raises LimitExceededError when too many commands wait, UnavailableError when the log cannot take
        it now (nothing was recorded), NotLeaderError when this coordinator no longer leads.
        """
        if self._stopped is not None:
            raise _not_leading(self._stopped)
        if self._ending and not isinstance(body, EndTerm):
            raise NotLeaderError("this coordinator is handing over; try again in a moment")
        if len(self._queue) >= limits.COMMAND_QUEUE:
            raise LimitExceededError(
                f"{limits.COMMAND_QUEUE} commands wait for the log; try again in a moment",
                metadata={"limit": str(limits.COMMAND_QUEUE)},
            )
        with observe.span("record decision", parent=traceparent) as span:
            answer: asyncio.Future[Accepted | Rejected] = asyncio.get_running_loop().create_future()
            self._queue.append(_Waiting(body, span.traceparent or traceparent, answer))
            self._wake.set()
            decided = await answer
            if isinstance(decided, Accepted):
                span.set("hivefold.record.sequence", decided.sequence)
            return decided

    async def confirm(self) -> None:
        """Returns once the log has said that this coordinator leads still. Raises as `execute`.

        For what the log does not fence. What is due is recorded, or nothing is: the log answers either.
        """
        await self.execute(ExpireJobs())

    def tick(self) -> None:
        """Looks whether time has made a command due; called a few times a second."""
        if not self._may_act():
            return
        if self._queue or self._doubted or self._due(self._state, self._now_us()):
            self._wake.set()

    def doubt(self) -> None:
        """Another may have led meanwhile: the log is asked, even where there is nothing to record."""
        self._doubted = True
        self._wake.set()

    async def run(self) -> None:
        """Writes until it is cancelled. Raises LogError when it may not go on: replay, then start anew."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while await self._write_once():
                    pass
        except BaseException as error:
            self._stop(_ended_by(error))
            raise

    async def _write_once(self) -> bool:
        """Writes one batch; whether there may be more to write at once."""
        try:
            await self._keep_segment_open()
        except UnavailableError as error:
            self._refuse_waiting(error)
            return False
        batch = Batch(self._state, self._head_hash, self._now_us(), self._entropy)
        answers = self._decide_waiting(batch)
        self._decide_due(batch)
        try:
            if batch.records:
                await self._append(batch)
            elif answers or self._doubted:
                await self._confirm()
                self._doubted = False
        except UnavailableError as error:
            _answer(answers, error)
            _log.warning("append refused", reason=error.reason, error=str(error), records=len(batch.records))
            return bool(self._queue)
        except BaseException as error:
            # Cancelled, too: whether it was recorded the next leader knows, and nobody else will answer.
            _answer(answers, _not_leading(_ended_by(error)))
            raise
        _answer(answers, None)
        return bool(self._queue) or batch.full or (bool(batch.records) and bool(self._due(self._state, self._now_us())))

    async def _keep_segment_open(self) -> None:
        """Closes the log's segment where it is full, and opens the next. Raises UnavailableError, LogError."""
        if not self._segment_closed and self._log.open_segment.full:
            await self.record(CloseSegment(self._log.open_segment.number))
            self._segment_closed = True
            reach(Failpoint.AFTER_CLOSE)
        if self._segment_closed:
            await self.record(OpenSegment(self._log.open_segment.number))
            self._segment_closed = False
            _log.info("segment opened", segment=self._log.open_segment.number, sequence=self._state.sequence)

    def _refuse_waiting(self, error: UnavailableError) -> None:
        """Tells all that wait that the log cannot take it now."""
        _log.warning("segment not changed", reason=error.reason, error=str(error), waiting=len(self._queue))
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

    def _decide_waiting(self, batch: Batch) -> list[_Answer]:
        answers: list[_Answer] = []
        while self._queue and not batch.full:
            waiting = self._queue.popleft()
            if not waiting.answer.cancelled():
                answers.append((waiting, batch.add(waiting.body, waiting.traceparent)))
        return answers

    def _decide_due(self, batch: Batch) -> None:
        """Adds the timer commands that the tentative state makes due."""
        for body in self._due(batch.state, batch.time_us):
            if batch.full:
                return
            answer = batch.add(body, "")
            if isinstance(body, PlaceTasks) and isinstance(answer, Accepted) and not answer.events:
                self._unplaceable = _Unplaceable(batch.state, next_retry_us(batch.state, batch.time_us))

    def _due(self, state: State, time_us: int) -> tuple[CommandBody, ...]:
        """The timer commands that time or the state make due, but for a placement that is known to place nothing."""
        vain = self._unplaceable
        known = vain is not None and vain.state is state and (vain.until_us is None or time_us < vain.until_us)
        return due(state, time_us, placeable=not known)

    def _now_us(self) -> int:
        """The wall clock. Set back behind recorded time, that goes on at half speed: waits end, and the two meet."""
        read_ms = self._clock.monotonic_ms()
        slow_us = self._time_us + (read_ms - self._time_read_ms) * 500
        self._time_us, self._time_read_ms = max(self._clock.now_us(), slow_us), read_ms
        return self._time_us

    async def _append(self, batch: Batch) -> None:
        """Appends the batch; once it is durable, its state is the state; then, and only then, acts."""
        if not self._may_act():
            raise UnavailableError("the lease of this leader was not renewed in time: it records nothing for now")
        reach(Failpoint.BEFORE_APPEND)
        for prepare in self._prepares:
            asyncio.get_running_loop().call_soon(prepare, batch.records)
        await self._log.append(
            batch.entries, expected_sequence=self._state.sequence, term_sequence=self._state.term_sequence
        )
        reach(Failpoint.AFTER_APPEND)
        self._state, self._head_hash = batch.state, batch.head_hash
        if self._unplaceable is not None and self._unplaceable.state is not batch.state:
            self._unplaceable = None  # an old state is not kept alive
        self._folded_bytes += batch.size
        if self._grow is not None:
            self._grow(committed.hash for committed in batch.records)
        for act in self._acts:
            act(batch.records)
        self._endings.offer(batch.records)
        self._followers.offer(batch.records)

    async def _confirm(self) -> None:
        """Raises FencedError when another wrote: a deposed leader would answer from old state, and forget outcomes."""
        if await self._log.head() != Head(self._state.sequence, self._state.term_sequence):
            raise FencedError("another coordinator wrote to the log; this one stops leading")

    def _stop(self, error: Exception) -> None:
        self._stopped = error
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                waiting.answer.set_exception(_not_leading(error))
        self._endings.end()
        self._followers.end()


def _answer(answers: Sequence[_Answer], error: Exception | None) -> None:
    """Tells what was decided, now that it is durable; or, with an error, that nothing was."""
    for waiting, answer in answers:
        if waiting.answer.done():
            continue
        failed = error or (answer if isinstance(answer, Exception) else None)
        if failed is not None:
            waiting.answer.set_exception(failed)
        elif not isinstance(answer, Exception):
            waiting.answer.set_result(answer)


def _ended_by(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else NotLeaderError("the coordinator is stopping")


def _not_leading(error: Exception) -> NotLeaderError:
    return error if isinstance(error, NotLeaderError) else NotLeaderError(f"this coordinator no longer leads: {error}")
