"""Which models stay loaded, who makes room, who waits. Pure: times and measurements come in, steps go out.

A model is resident from the moment that it is let in until its memory is free again. Whoever needs one that is not
resident waits in one line, in the order of arrival. Room for the first in the line is made by models that nobody
uses: the least important first, of those the one unused for longest. Where these are not enough, models in use take
no new leases any more and go once the ones they have end, the one that is resident for longest first: a model that is
asked for all the time cannot keep the others out. Whoever waits too long is refused. A model that is leased or pinned
is never unloaded.

Memory comes in pools, of which there is one so far: `HOST`, for models run on processors alone. A pool that was not
measured counts as free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from hivefold.limits import MODEL_IDLE_S, MODELS_LOADED
from node.residency.limits import MEMORY_PATIENCE_MS, MODEL_ROOM_MS, MODEL_TURN_MS, MODELS_WAITING

HOST: Final = "host"
Bytes: TypeAlias = Mapping[str, int]
"""Bytes of each pool."""
NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Rules:
    """What a node was told. `idle_ms` of 0 keeps models that nobody uses; the rest is described beside its default."""

    models: int = MODELS_LOADED
    """Most models at once."""
    idle_ms: int = int(MODEL_IDLE_S * 1000)
    """How long a model may be unused before it is unloaded."""
    wait_ms: int = MODEL_ROOM_MS
    """How long one may wait for room."""
    turn_ms: int = MODEL_TURN_MS
    """How long a model in use stays at least, and twice as long as it took to load: else all time goes into loading."""
    line: int = MODELS_WAITING
    """Most models that wait for room."""
    memory_ms: int = MEMORY_PATIENCE_MS
    """How long one may wait for memory that other processes have: they may give it back."""


class Memory(NamedTuple):
    """What was measured: what is free, other processes counted, and what models may take in all."""

    free: Bytes
    budget: Bytes


class Phase(Enum):
    """Where a resident model is in its life."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True, eq=False)
class Resident:
    """A model that is let in. `expected` is what it takes at its most, `held` what was seen of it so far."""

    digest: str
    expected: Bytes
    importance: int
    pinned: bool
    asked_ms: int
    """When it was let in; once it is loaded, when that was."""
    users: int = 0
    held: Bytes = field(default_factory=dict)
    phase: Phase = Phase.LOADING
    leaving: bool = False
    """Takes no new leases: others wait for its place, or it was released."""
    released: bool = False
    """Leaves whoever waits: it was told to."""
    load_ms: int = 0
    used: int = 0
    """Grows with every use of any model: the order of last use."""
    unused_ms: int = 0
    """Since when it has no users."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A model that waits for room. `expected` is what it will take."""

    digest: str
    expected: Bytes
    importance: int
    pinned: bool
    since_ms: int


class Full(Enum):
    """Why a model is not let in."""

    LINE = "as many models wait for room as may"
    WAIT = "no room came free in time"
    NEVER = "it does not fit, whoever goes"


class Steps(NamedTuple):
    """What to do now: models to unload, models to load, models already loaded that are wanted again, refusals."""

    unload: tuple[Resident, ...]
    load: tuple[Resident, ...]
    again: tuple[Resident, ...]
    refuse: tuple[tuple[Waiter, Full], ...]


class Residency:
    """The models of a node and the line before them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.residents: dict[str, Resident] = {}
        self.line: dict[str, Waiter] = {}
        self._uses = 0

    # -- leases -------------------------------------------------------------

    def lease(self, resident: Resident) -> bool:
        """Takes a lease on a loaded model; False when it takes none."""
        if resident.leaving or resident.phase is not Phase.READY:
            return False
        self._uses += 1
        resident.users += 1
        resident.used = self._uses
        return True

    def end(self, resident: Resident, now_ms: int) -> bool:
        """Ends a lease; whether the model is unused now."""
        resident.users -= 1
        if resident.users:
            return False
        resident.unused_ms = now_ms
        return True

    def ask(
        self, digest: str, expected: Bytes, now_ms: int, *, importance: int = 2, pinned: bool = False
    ) -> Full | None:
        """Lets a model wait for room; joins it where it waits already. Full.LINE when too many wait."""
        waiter = self.line.get(digest)
        if waiter is not None:
            waiter.pinned |= pinned
            return None
        if len(self.line) >= self.rules.line:
            return Full.LINE
        self.line[digest] = Waiter(digest, expected, importance, pinned, now_ms)
        return None

    def withdraw(self, digest: str) -> None:
        """Nobody waits for the model any more."""
        self.line.pop(digest, None)

    def resume(self, resident: Resident, users: int) -> None:
        """Those who waited for a model that is loaded after all, one at least, have their leases on it."""
        self._uses += 1
        resident.users += users - 1  # one was held for them since `step`
        resident.used = self._uses

    # -- what became of it ----------------------------------------------------

    def loaded(self, resident: Resident, held: Bytes, users: int, now_ms: int) -> None:
        """The model is loaded, takes so much, and is leased by those who waited for it."""
        self._uses += 1
        resident.phase, resident.held, resident.users, resident.used = Phase.READY, held, users, self._uses
        resident.load_ms, resident.asked_ms, resident.unused_ms = now_ms - resident.asked_ms, now_ms, now_ms

    def gone(self, resident: Resident) -> None:
        """The model's memory is free, or it could not be loaded."""
        if self.residents.get(resident.digest) is resident:
            del self.residents[resident.digest]

    def pin(self, digest: str, *, pinned: bool) -> None:
        """Keeps a model from being unloaded, or no longer."""
        for kept in (self.residents.get(digest), self.line.get(digest)):
            if kept is not None:
                kept.pinned = pinned

    def release(self, digest: str) -> None:
        """The model is to be unloaded as soon as nobody uses it, pinned or not."""
        resident = self.residents.get(digest)
        if resident is not None:
            resident.pinned, resident.released, resident.leaving = False, True, True

    # -- steps ----------------------------------------------------------------

    def step(self, now_ms: int, memory: Memory) -> Steps:
        """What is due. To be asked again when something changed, and at `due_ms` at the latest."""
        unload = [resident for resident in self.residents.values() if self._over(resident, now_ms)]
        for resident in unload:
            resident.phase = Phase.UNLOADING
        for resident in self.residents.values():
            resident.leaving = resident.released or resident.phase is Phase.UNLOADING
        load: list[Resident] = []
        again: list[Resident] = []
        refuse: list[tuple[Waiter, Full]] = []
        while self.line:
            waiter = next(iter(self.line.values()))
            there = self.residents.get(waiter.digest)
            if now_ms - waiter.since_ms >= self.rules.wait_ms:
                refuse.append((waiter, Full.WAIT))
            elif there is not None:
                if there.leaving or there.phase is not Phase.READY:
                    break  # it comes back once it is gone
                there.pinned |= waiter.pinned
                there.users += 1  # or whoever is next in the line would have its room before `resume` is called
                again.append(there)
            elif self._fits(waiter, memory, ()):
                load.append(self._let_in(waiter, now_ms))
            elif self._make_room(waiter, memory, now_ms, unload):
                break
            else:
                refuse.append((waiter, Full.NEVER))
            del self.line[waiter.digest]
        unload += self._relieve(memory)
        return Steps(tuple(unload), tuple(load), tuple(again), tuple(refuse))

    def due_ms(self, now_ms: int, look_ms: int) -> int:
        """When `step` may have something to do at the latest, as far as is known now; NEVER for never.

        Memory changes without notice, other processes take it and give it back: it is looked at every `look_ms`, ten
        times as often while models wait for it.
        """
        if not self.residents and not self.line:
            return NEVER
        due = now_ms + (look_ms // 10 if self.line else look_ms)
        if self.line:
            due = min(due, next(iter(self.line.values())).since_ms + self.rules.wait_ms)
        for resident in self.residents.values():
            if resident.phase is not Phase.READY:
                continue
            if self.line and now_ms < (over_ms := self._turn_over_ms(resident)):
                due = min(due, over_ms)
            if self.rules.idle_ms and not resident.users and not resident.pinned:
                due = min(due, resident.unused_ms + self.rules.idle_ms)
        return due

    def wants_room(self) -> bool:
        """Whether anything waits, or is to go once it is unused."""
        return bool(self.line) or any(resident.released for resident in self.residents.values())

    # -- room -----------------------------------------------------------------

    def _over(self, resident: Resident, now_ms: int) -> bool:
        """Whether a model goes of itself: it was released, or nobody used it for long."""
        if resident.phase is not Phase.READY or resident.users or resident.pinned:
            return False
        idle = self.rules.idle_ms and now_ms - resident.unused_ms >= self.rules.idle_ms
        return resident.released or bool(idle)

    def _let_in(self, waiter: Waiter, now_ms: int) -> Resident:
        resident = Resident(waiter.digest, waiter.expected, waiter.importance, waiter.pinned, now_ms)
        self.residents[waiter.digest] = resident
        return resident

    def _make_room(self, waiter: Waiter, memory: Memory, now_ms: int, unload: list[Resident]) -> bool:
        """Chooses who goes for `waiter`; False when it would not fit even if all went that may."""
        going = [resident for resident in self.residents.values() if resident.phase is Phase.UNLOADING]
        if self._fits(waiter, memory, going):
            return True  # it is being made already
        if not self._could_fit(waiter, memory, now_ms):
            return False
        for resident in self._in_order(now_ms):
            going.append(resident)
            if self._fits(waiter, memory, going):
                break
        else:
            return True  # some are not long enough here, or are just being loaded
        chosen = [resident for resident in going if resident.phase is Phase.READY]
        if all(not resident.users for resident in chosen):
            chosen = self._needed(waiter, memory, going)
            for resident in chosen:
                resident.phase = Phase.UNLOADING
            unload += chosen
        for resident in chosen:
            resident.leaving = True
        return True

    def _could_fit(self, waiter: Waiter, memory: Memory, now_ms: int) -> bool:
        """Whether it would fit if all went that may; while it is young, whatever other processes have now."""
        if now_ms - waiter.since_ms < self.rules.memory_ms:
            memory = memory._replace(free={})
        return self._fits(waiter, memory, [r for r in self.residents.values() if not r.pinned])

    def _in_order(self, now_ms: int) -> Iterable[Resident]:
        """Those that may go: the unused, least important and unused for longest first; then those in use."""
        ready = [r for r in self.residents.values() if r.phase is Phase.READY and not r.pinned]
        yield from sorted((r for r in ready if not r.users), key=lambda r: (-r.importance, r.used))
        stayed = [r for r in ready if r.users and now_ms >= self._turn_over_ms(r)]
        yield from sorted(stayed, key=lambda r: (-r.importance, r.asked_ms))

    def _turn_over_ms(self, resident: Resident) -> int:
        return resident.asked_ms + max(self.rules.turn_ms, 2 * resident.load_ms)

    def _needed(self, waiter: Waiter, memory: Memory, going: list[Resident]) -> list[Resident]:
        """Of the unused that were chosen the ones without whom it would not do: the last of them may be enough."""
        needed = list(going)
        for resident in going:
            if resident.phase is Phase.READY:
                fewer = [kept for kept in needed if kept is not resident]
                if self._fits(waiter, memory, fewer):
                    needed = fewer
        return [resident for resident in needed if resident.phase is Phase.READY]

    def _fits(self, waiter: Waiter, memory: Memory, gone: Iterable[Resident]) -> bool:
        """Whether there is room once `gone` are gone: by number, by what models may take, by what is free."""
        away = set(map(id, gone))
        stay = [resident for resident in self.residents.values() if id(resident) not in away]
        if len(stay) >= self.rules.models:
            return False
        for pool, need in waiter.expected.items():
            taken = sum(_most(resident, pool) for resident in stay)
            if pool in memory.budget and taken + need > memory.budget[pool]:
                return False
            if pool not in memory.free:
                continue
            coming = sum(_unseen(resident, pool) for resident in stay)
            back = sum(resident.held.get(pool, 0) for resident in self.residents.values() if id(resident) in away)
            if need + coming > memory.free[pool] + back:
                return False
        return True

    def _relieve(self, memory: Memory) -> list[Resident]:
        """Who goes because other processes took so much that less is free than has to be: unused models only."""
        relieved: list[Resident] = []
        for pool, free in memory.free.items():
            back = sum(r.held.get(pool, 0) for r in self.residents.values() if r.phase is Phase.UNLOADING)
            unused = [r for r in self.residents.values() if r.phase is Phase.READY and not r.users and not r.pinned]
            for resident in sorted(unused, key=lambda r: (-r.importance, r.used)):
                if free + back >= 0:
                    break
                if resident.held.get(pool, 0):
                    back += resident.held[pool]
                    resident.phase, resident.leaving = Phase.UNLOADING, True
                    relieved.append(resident)
        return relieved


def _most(resident: Resident, pool: str) -> int:
    return max(resident.expected.get(pool, 0), resident.held.get(pool, 0))


def _unseen(resident: Resident, pool: str) -> int:
    """What a model may still come to take, beyond what is in the measurement already."""
    if resident.phase is Phase.UNLOADING:
        return 0
    return max(0, resident.expected.get(pool, 0) - resident.held.get(pool, 0))
