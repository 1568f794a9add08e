"""The life of attempts on one node. Pure: no clock, no I/O; what is to be done comes back as effects.

    accept ──► waiting ──► running ──► answered ──► stored, and the work message acknowledged
                 │ cancel, deadline, leave: answered with a failure
                 │ fence: dropped, the message given back

An attempt is refused in silence when its term is lower than the highest seen, its boot is not
this one, its number is lower than one seen for its task, or it was accepted before. Attempts run in
order of priority, then of arrival. A *run* is what occupies one place: one attempt, or a group of a
batch that is quick enough to share one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from hivefold.errors import Reason
from hivefold.limits import SEEN_ATTEMPTS

PRIORITIES: Final = 3
"""Control, interactive, batch: 0 goes first."""


class Attempt(NamedTuple):
    """One attempt of a batch: the task, the attempt's number and, for infer, its rows."""

    task: int
    number: int
    first_row: int = 0
    row_count: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Attempts of one job as they came in one work message, which `delivery` numbers.

    `deadline_us` is 0 where there is none; up to `group` attempts share one run.
    """

    delivery: int
    term: int
    boot_id: str
    job_id: str
    attempts: tuple[Attempt, ...]
    priority: int = PRIORITIES - 1
    deadline_us: int = 0
    group: int = 1


@dataclass(frozen=True, slots=True)
class Start:
    """Run these attempts of a delivery; report `finished(run)`, then `stored`."""

    run: int
    delivery: int
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer these attempts with a failure, without running them; then report `stored`."""

    delivery: int
    attempts: tuple[Attempt, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop a run as soon as it can be stopped; its attempts fail with `reason`."""

    run: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Every attempt of the delivery is stored or refused: it must not come again."""

    delivery: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Some attempts of the delivery were dropped: it may come again."""

    delivery: int


Effect: TypeAlias = Start | Answer | Abort | Acknowledge | GiveBack


@dataclass(slots=True)
class _Parcel:
    """A delivery that is not done: what waits, and how many attempts are not stored yet."""

    batch: Batch
    waiting: deque[Attempt]
    unstored: int
    dropped: bool = False
    behind: set[int] = field(default_factory=set)
    """Other deliveries that hold attempts of this one: it is done only after them."""


@dataclass(slots=True)
class _Run:
    delivery: int
    attempts: tuple[Attempt, ...]
    job_id: str


class NodeCore:
    """One boot of one node. Every method takes the time where it needs one and returns effects in order."""

    def __init__(self, boot_id: str, places: int) -> None:
        self.boot_id = boot_id
        self.term = 0
        """The highest term seen."""
        self.fenced = False
        self.leaving = False
        self._places = places
        self._parcels: dict[int, _Parcel] = {}
        self._lines: tuple[deque[int], ...] = tuple(deque() for _ in range(PRIORITIES))
        self._runs: dict[int, _Run] = {}
        self._next_run = 1
        self._held: dict[tuple[str, int], tuple[int, int]] = {}
        """For each task with an attempt here: the attempt's number and its delivery."""
        self._seen: dict[tuple[str, int], int] = {}
        self._seen_before: dict[tuple[str, int], int] = {}

    @property
    def outstanding(self) -> int:
        """Attempts accepted whose outcome is not stored."""
        return sum(parcel.unstored for parcel in self._parcels.values())

    @property
    def running(self) -> int:
        """Attempts that run."""
        return sum(len(run.attempts) for run in self._runs.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._parcels

    def observe_term(self, term: int) -> None:
        """Notes a term that the fleet is in."""
        self.term = max(self.term, term)

    def accept(self, batch: Batch, now_us: int) -> list[Effect]:
        """Takes a batch in, refusing what is old, and starts what there is room for."""
        if batch.boot_id != self.boot_id or batch.term < self.term:
            return [Acknowledge(batch.delivery)]
        if self.fenced:
            return [GiveBack(batch.delivery)]
        self.observe_term(batch.term)
        parcel = _Parcel(batch, deque(), 0)
        for attempt in batch.attempts:
            self._take(parcel, attempt)
        self._parcels[batch.delivery] = parcel
        if self.leaving:
            return [*self._answer_waiting(parcel, Reason.RETURNED), *self._settle(batch.delivery)]
        if parcel.waiting:
            self._lines[batch.priority].append(batch.delivery)
        return [*self._settle(batch.delivery), *self._start(now_us)]

    def finished(self, run: int, now_us: int) -> list[Effect]:
        """A run has its outcomes (not stored yet): its place is free."""
        self._runs.pop(run, None)
        return self._start(now_us)

    def stored(self, delivery: int, attempts: Sequence[Attempt]) -> list[Effect]:
        """The outcomes of these attempts are stored durably."""
        parcel = self._parcels.get(delivery)
        if parcel is None:
            return []
        job_id = parcel.batch.job_id
        for attempt in attempts:
            held = self._held.get((job_id, attempt.task))
            if held == (attempt.number, delivery):
                del self._held[job_id, attempt.task]
        parcel.unstored -= len(attempts)
        return self._settle(delivery)

    def cancel(self, job_id: str, term: int, now_us: int) -> list[Effect]:
        """Gives up all attempts of a job: those that wait are answered, those that run are aborted."""
        if term < self.term:
            return []
        self.observe_term(term)
        effects: list[Effect] = []
        for parcel in self._parcels.values():
            if parcel.batch.job_id == job_id:
                effects += self._answer_waiting(parcel, Reason.CANCELLED)
        effects += [Abort(run, Reason.CANCELLED) for run, held in self._runs.items() if held.job_id == job_id]
        return [*effects, *self._start(now_us)]

    def fence(self) -> list[Effect]:
        """The fleet is not heard: drops what is not started, takes nothing until `unfence`."""
        self.fenced = True
        effects: list[Effect] = []
        for delivery, parcel in list(self._parcels.items()):
            if parcel.waiting:
                self._drop_waiting(parcel)
                effects += self._settle(delivery)
        return effects

    def unfence(self) -> None:
        """The fleet is heard again."""
        self.fenced = False

    def leave(self) -> list[Effect]:
        """Takes no more work: what waits is returned at once, what runs may finish."""
        self.leaving = True
        effects: list[Effect] = []
        for parcel in self._parcels.values():
            effects += self._answer_waiting(parcel, Reason.RETURNED)
        return effects

    def return_running(self) -> list[Effect]:
        """The time to leave is over: what still runs is aborted and returned."""
        return [Abort(run, Reason.RETURNED) for run in self._runs]

    def _take(self, parcel: _Parcel, attempt: Attempt) -> None:
        key = (parcel.batch.job_id, attempt.task)
        seen = self._seen.get(key) or self._seen_before.get(key, 0)
        held = self._held.get(key)
        if attempt.number <= seen:
            if held is not None and held[0] == attempt.number and held[1] != parcel.batch.delivery:
                parcel.behind.add(held[1])
            return
        if held is not None:
            self._supersede(held[1], key)
        self._note(key, attempt.number)
        self._held[key] = (attempt.number, parcel.batch.delivery)
        parcel.waiting.append(attempt)
        parcel.unstored += 1

    def _note(self, key: tuple[str, int], number: int) -> None:
        """Remembers the number, in two generations: bounded, and the last SEEN_ATTEMPTS are always known."""
        if len(self._seen) >= SEEN_ATTEMPTS:
            self._seen_before, self._seen = self._seen, {}
        self._seen[key] = number

    def _supersede(self, delivery: int, key: tuple[str, int]) -> None:
        """A later attempt of the task has come: an earlier one that waits is pointless."""
        parcel = self._parcels.get(delivery)
        if parcel is None:
            return
        kept = deque(attempt for attempt in parcel.waiting if attempt.task != key[1])
        parcel.unstored -= len(parcel.waiting) - len(kept)
        parcel.waiting = kept

    def _start(self, now_us: int) -> list[Effect]:
        effects: list[Effect] = []
        for line in self._lines:
            while line and len(self._runs) < self._places:
                delivery = line[0]
                parcel = self._parcels.get(delivery)
                if parcel is None or not parcel.waiting:
                    line.popleft()
                    effects += self._settle(delivery)
                elif 0 < parcel.batch.deadline_us <= now_us:
                    effects += self._answer_waiting(parcel, Reason.DEADLINE_EXCEEDED)
                else:
                    effects.append(self._start_one(delivery, parcel))
        return effects

    def _start_one(self, delivery: int, parcel: _Parcel) -> Start:
        size = min(parcel.batch.group, len(parcel.waiting))
        attempts = tuple(islice(parcel.waiting, size))
        for _ in range(size):
            parcel.waiting.popleft()
        run, self._next_run = self._next_run, self._next_run + 1
        self._runs[run] = _Run(delivery, attempts, parcel.batch.job_id)
        return Start(run, delivery, attempts)

    def _answer_waiting(self, parcel: _Parcel, reason: Reason) -> list[Effect]:
        attempts = tuple(parcel.waiting)
        parcel.waiting.clear()
        return [Answer(parcel.batch.delivery, attempts, reason)] if attempts else []

    def _drop_waiting(self, parcel: _Parcel) -> None:
        """Forgets what waits, so that the same attempts are accepted when they come again."""
        for attempt in parcel.waiting:
            key = (parcel.batch.job_id, attempt.task)
            self._held.pop(key, None)
            # The number before stays refused; this one may come again.
            self._seen_before.pop(key, None)
            self._seen[key] = attempt.number - 1
        parcel.unstored -= len(parcel.waiting)
        parcel.waiting.clear()
        parcel.dropped = True

    def _settle(self, delivery: int) -> list[Effect]:
        """Ends a delivery of which nothing is left, and those that only waited for it."""
        parcel = self._parcels.get(delivery)
        if parcel is None or parcel.unstored:
            return []
        parcel.behind = {other for other in parcel.behind if other in self._parcels}
        if parcel.behind:
            return []
        del self._parcels[delivery]
        effects: list[Effect] = [GiveBack(delivery) if parcel.dropped else Acknowledge(delivery)]
        for other, follower in list(self._parcels.items()):
            if delivery in follower.behind:
                follower.dropped |= parcel.dropped
                follower.behind.discard(delivery)
                effects += self._settle(other)
        return effects
