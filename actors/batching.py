"""The queue before a model: which requests run together, and when. Pure: the time comes in, batches go out.

Requests wait in the order of their priority, then of their arrival. Only requests with the same `shape` (of a row,
of every input, and the same wanted outputs) share a batch. A batch goes out as soon as it is full, its first request
has waited `max_delay_us`, or as many are there as lately were: whoever is alone does not wait, but for a look now and
then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

_NEVER: Final = 1 << 62
_MEMORY: Final = 8
"""Batches after which most of the company that does not come any more is not waited for."""
_FEW: Final = 6
"""Company below which a batch that costs next to nothing to start does not wait for it."""
_LOOK: Final = 16
_LOOK_HINTED: Final = 256
_LOOK_MOST: Final = 1024
"""Batches after which one waits its whole delay, to see how much company there is: what is answered at once seldom has
any, however many callers there are. While there is little, twice as many each time up to the most; fewer where two
were in hand at once."""
_ALONE: Final = 1.5
"""Company, on average, below which a request is alone."""
_ENOUGH: Final = 32
"""Company that is enough: more hides no more of what a batch costs to start."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How requests of one model are put together.

    `max_rows` of 1 means one request at a time. `preferred_rows`, ascending, are sizes that the model likes best: a
    batch of at least the first of them goes out at once, cut to the largest that it fills. With `patient` the first
    request waits its whole delay unless the batch is full: else only for as much company as there was lately.
    """

    max_rows: int
    max_bytes: int
    max_delay_us: int = 0
    preferred_rows: tuple[int, ...] = ()
    patient: bool = False
    queue_requests: int = 1024
    queue_bytes: int = 1 << 27


@dataclass(slots=True)
class Waiting(Generic[T]):
    """A request in the queue: `what` is the caller's own. `deadline_us` is 0 where there is none."""

    what: T
    shape: Hashable
    rows: int
    size_bytes: int
    arrived_us: int
    deadline_us: int = 0
    priority: int = 2
    gone: bool = False
    """Set by the caller when nobody waits for the answer any more."""


class Batch(NamedTuple, Generic[T]):
    """What to run now, in order; with what is over before it began."""

    requests: tuple[Waiting[T], ...]
    expired: tuple[Waiting[T], ...]


class BatchQueue(Generic[T]):
    """The requests that wait for one model."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self._lines: dict[int, dict[Hashable, deque[Waiting[T]]]] = {}
        self._order: list[int] = []
        """The priorities that were seen, first to last."""
        self.requests = 0
        self.rows = 0
        self.size_bytes = 0
        self.hurried = False
        """Set by the caller while a batch costs next to nothing to start: then nobody waits for little company."""
        self.heavy = False
        """Set by the caller while a batch takes so long that company saves nothing: then nobody waits for any."""
        self.running = 0
        """Set by the caller: requests that are being run, and cannot be company to those that wait."""
        self.company = 1.0
        """Requests in hand at once, as many as there were lately."""
        self._look_after = _LOOK
        self._unlooked = 0
        """Batches since the last look."""

    def offer(self, request: Waiting[T], running: int = 0) -> bool:
        """Takes a request in while `running` others are being run; False when the queue is full."""
        policy = self.policy
        full = self.requests >= policy.queue_requests or self.size_bytes + request.size_bytes > policy.queue_bytes
        if full and self.requests:
            return False
        line = self._lines.get(request.priority)
        if line is None:
            line = self._lines[request.priority] = {}
            self._order = sorted(self._lines)
        waiting = line.get(request.shape)
        if waiting is None:
            waiting = line[request.shape] = deque()
        waiting.append(request)
        self.requests += 1
        self.rows += request.rows
        self.size_bytes += request.size_bytes
        there = self.requests + running
        if there > 1:
            self.company = max(there, self.company)
            self._look_after = min(self._look_after, _LOOK_HINTED)
        return True

    def pass_by(self) -> bool:
        """Whether a request may be run at once, without being offered: nobody is there who could keep it company."""
        if not self.hurried or self.requests or self.company > _ALONE or self.policy.patient or self._looks:
            return False
        self._unlooked += 1
        return True

    @property
    def _looks(self) -> bool:
        """Whether the next batch waits to see what company there is."""
        return self._unlooked >= self._look_after

    @property
    def filled(self) -> bool:
        """Whether a batch may be due before its first request has waited its time."""
        policy = self.policy
        if policy.preferred_rows:
            return self.rows >= policy.preferred_rows[0]
        if self.rows >= policy.max_rows or policy.max_delay_us <= 0:
            return True
        return not policy.patient and self._accompanied

    @property
    def _accompanied(self) -> bool:
        """Whether as many wait as may be hoped for."""
        if self.heavy:
            return True
        if self.hurried:
            if self._looks:
                return self.requests >= _ENOUGH
            if self.company < _FEW:
                return True
        return self.requests + self.running >= min(self.company - 0.5, _ENOUGH)

    def take(self, now_us: int, lanes: int = 1) -> Batch[T]:
        """The next batch, empty when none is due yet: then `due_us` says when to ask again.

        Where `lanes` batches may begin now, it has its part of what waits and no more.
        """
        most = -(-self.requests // max(1, lanes))
        expired: list[Waiting[T]] = []
        for priority in self._order:
            line = self._lines[priority]
            for shape in self._by_arrival(line, now_us, expired):
                waiting = line[shape]
                size = self._due(waiting, now_us)
                # What waits for company keeps nobody else waiting.
                if size:
                    self._look()
                    taken = self._cut(waiting, size, most, now_us, expired)
                    if not waiting:
                        del line[shape]
                    return Batch(taken, tuple(expired))
        return Batch((), tuple(expired))

    def _look(self) -> None:
        """Learns from how many are in hand when a batch goes out."""
        there = self.requests + self.running
        if not self._looks:
            self._unlooked += 1
            self.company += (there - self.company) / _MEMORY
            return
        self._unlooked = 0
        self._look_after = _LOOK if there >= _FEW else min(2 * self._look_after, _LOOK_MOST)
        self.company = float(there)

    def due_us(self) -> int:
        """When `take` has something at the latest, as far as is known now; a time in the past means now."""
        due = _NEVER
        for line in self._lines.values():
            for waiting in line.values():
                due = min(due, waiting[0].arrived_us + self.policy.max_delay_us)
        return due

    def _by_arrival(
        self, line: dict[Hashable, deque[Waiting[T]]], now_us: int, expired: list[Waiting[T]]
    ) -> list[Hashable]:
        """The shapes of a line whose first request is not over, the one that waits longest first."""
        for shape in list(line):
            self._drop_over(line[shape], now_us, expired)
            if not line[shape]:
                del line[shape]
        return sorted(line, key=lambda shape: line[shape][0].arrived_us) if len(line) > 1 else list(line)

    def _drop_over(self, waiting: deque[Waiting[T]], now_us: int, expired: list[Waiting[T]]) -> None:
        while waiting and (waiting[0].gone or 0 < waiting[0].deadline_us <= now_us):
            expired.append(self._removed(waiting))

    def _due(self, waiting: deque[Waiting[T]], now_us: int) -> int:
        """Rows of the batch that should go out now; 0 for none."""
        policy = self.policy
        if not policy.preferred_rows and (policy.max_delay_us <= 0 or (not policy.patient and self._accompanied)):
            return policy.max_rows
        rows = 0
        for request in waiting:
            rows += request.rows
            if rows >= policy.max_rows:
                return policy.max_rows
        fitting = [size for size in policy.preferred_rows if size <= rows]
        if fitting:
            return fitting[-1]
        return policy.max_rows if now_us - waiting[0].arrived_us >= policy.max_delay_us else 0

    def _cut(
        self, waiting: deque[Waiting[T]], size: int, most: int, now_us: int, expired: list[Waiting[T]]
    ) -> tuple[Waiting[T], ...]:
        """Takes from the front while it fits; a request that is larger than any batch goes alone."""
        first = self._removed(waiting)
        taken = [first]
        rows, size_bytes = first.rows, first.size_bytes
        while True:
            self._drop_over(waiting, now_us, expired)
            if not waiting or len(taken) >= most:
                break
            following = waiting[0]
            rows += following.rows
            size_bytes += following.size_bytes
            if rows > size or size_bytes > self.policy.max_bytes:
                break
            taken.append(self._removed(waiting))
        return tuple(taken)

    def _removed(self, waiting: deque[Waiting[T]]) -> Waiting[T]:
        request = waiting.popleft()
        self.requests -= 1
        self.rows -= request.rows
        self.size_bytes -= request.size_bytes
        return request
