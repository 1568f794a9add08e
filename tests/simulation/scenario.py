"""What happens to one simulated fleet, drawn from a seed before it begins: its size, its network, and a list of acts.

Swarm testing: each seed has few of the kinds of fault, or many, seldom or often; what is never combined
with everything else hides less. Every act has a number and draws its own chance from it, so a run without
some of the acts is a run of its own, and a failure can be made small.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

FAULTS: Final = (
    "coordinator crash",
    "coordinator freeze",
    "coordinator cut off",
    "hand over",
    "lost ack",
    "refused append",
    "log full",
    "log stalled",
    "node crash",
    "node freeze",
    "node leave",
    "node cut off",
    "broker restart",
    "power cut",
    "clock jump",
    "redelivery",
    "archive full",
    "impostor",
)
"""Kinds of fault besides what the network does to messages; what each does is in tests.simulation.faults."""
CHANGES: Final = ("register", "move alias", "keep", "remove model", "change again")
"""What people do to the registry of models; the last repeats another of them."""
CALLS: Final = ("submit", "repeat", "reuse", "cancel", "drain", "rotate", *CHANGES)
"""What clients and operators do."""
_NO_JOBS_RETIRED: Final = 1000
_NO_SNAPSHOTS: Final = 100_000
_NO_SEGMENTS: Final = 100_000


class Act(NamedTuple):
    """Something that happens at a moment. `request` numbers the job, or the change, that a client's call is about."""

    number: int
    at_s: float
    name: str
    request: int = 0

    def __str__(self) -> str:
        return f"{self.number} {self.name}" + (f" r{self.request}" if self.request else "")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. `losses` is the ratio of messages that are lost, repeated or delayed; some bounds are small."""

    seed: int
    chaos_s: float
    coordinators: int
    recent_jobs: int
    snapshot_records: int
    segment_records: int
    keep_segments: int
    slots: tuple[int, ...]
    failing: float
    losses: float
    slowness_s: float
    shuffle: bool
    acts: tuple[Act, ...]
    plain: tuple[str, ...] = ()
    """What was made simple after it had been drawn."""

    def drawing(self, purpose: str) -> random.Random:
        """A stream of chance of its own, which does not depend on what else happens."""
        return random.Random(f"{self.seed}/{purpose}")

    def keeping(self, numbers: Collection[int]) -> Scenario:
        """The same with these acts only."""
        return replace(self, acts=tuple(act for act in self.acts if act.number in numbers))

    def simplified(self, aspect: str) -> Scenario:
        """The same with one aspect made simple, one of ASPECTS."""
        return replace(_SIMPLE[aspect](self), plain=(*self.plain, aspect))


_SIMPLE: Final[dict[str, Callable[[Scenario], Scenario]]] = {
    "losses": lambda scenario: replace(scenario, losses=0.0),
    "failing": lambda scenario: replace(scenario, failing=0.0),
    "shuffle": lambda scenario: replace(scenario, shuffle=False),
    "slowness": lambda scenario: replace(scenario, slowness_s=0.0005),
    "retirement": lambda scenario: replace(scenario, recent_jobs=_NO_JOBS_RETIRED),
    "snapshots": lambda scenario: replace(scenario, snapshot_records=_NO_SNAPSHOTS),
    "segments": lambda scenario: replace(scenario, segment_records=_NO_SEGMENTS),
    "group": lambda scenario: replace(scenario, coordinators=1),
    "nodes": lambda scenario: replace(scenario, slots=scenario.slots[:1]),
}
ASPECTS: Final = tuple(_SIMPLE)


def drawn(seed: int) -> Scenario:
    """The scenario of a seed."""
    draw = random.Random(f"{seed}/scenario")
    chaos_s = _between(draw, 6.0, 70.0)
    return Scenario(
        seed=seed,
        chaos_s=chaos_s,
        coordinators=draw.choice([1, 1, 2, 3]),
        recent_jobs=draw.choice([1, 4, _NO_JOBS_RETIRED, _NO_JOBS_RETIRED]),
        snapshot_records=draw.choice([7, 40, _NO_SNAPSHOTS]),
        segment_records=draw.choice([8, 25, _NO_SEGMENTS, _NO_SEGMENTS]),
        keep_segments=draw.choice([0, 1, 1, 3]),
        slots=tuple(draw.randint(1, 3) for _ in range(draw.choice([1, 1, 2, 2, 3, 4]))),
        failing=draw.choice([0.0, 0.0, 0.05, 0.2]),
        losses=draw.choice([0.0, 0.0, 0.01, 0.05, 0.2]),
        slowness_s=draw.choice([0.0005, 0.002, 0.02, 0.2]),
        shuffle=draw.random() < 0.5,
        acts=_with_changes(_numbered([*_faults(draw, chaos_s), *_calls(draw, chaos_s)]), draw, chaos_s),
    )


def _numbered(acts: list[Act]) -> tuple[Act, ...]:
    """In the order of time."""
    return tuple(act._replace(number=number) for number, act in enumerate(sorted(acts, key=_moment), 1))


def _with_changes(acts: tuple[Act, ...], draw: random.Random, chaos_s: float) -> tuple[Act, ...]:
    """With what people do to the registry, numbered after all else: that stays as it is without."""
    changes = _numbered(list(_changes(draw, chaos_s)))
    return tuple(sorted((*acts, *(act._replace(number=len(acts) + act.number) for act in changes)), key=_moment))


def _moment(act: Act) -> float:
    return act.at_s


def _between(draw: random.Random, least: float, most: float) -> float:
    """As often near the least as near the most, by ratio."""
    return math.exp(draw.uniform(math.log(least), math.log(most)))


def _faults(draw: random.Random, chaos_s: float) -> Iterator[Act]:
    density = draw.choice([0.1, 0.3, 0.5, 0.8])
    for name in FAULTS:
        if draw.random() < density:
            for at_s in _arrivals(draw, _between(draw, 3.0, 40.0), chaos_s):
                yield Act(0, at_s, name)


def _calls(draw: random.Random, chaos_s: float) -> Iterator[Act]:
    jobs = min(24, max(2, round(chaos_s * _between(draw, 0.1, 0.6))))
    for request in range(1, jobs + 1):
        at_s = draw.uniform(0.0, chaos_s)
        yield Act(0, at_s, "submit", request)
        for name, ratio in (("repeat", 0.2), ("reuse", 0.1), ("cancel", 0.15)):
            if draw.random() < ratio:
                yield Act(0, at_s + draw.expovariate(0.5), name, request)
    for name, ratio, mean_s in (("drain", 0.4, 15.0), ("rotate", 0.2, 25.0)):
        if draw.random() < ratio:
            for at_s in _arrivals(draw, mean_s, chaos_s):
                yield Act(0, at_s, name)


def _changes(draw: random.Random, chaos_s: float) -> Iterator[Act]:
    if draw.random() < 0.5:
        return
    for request in range(1, min(16, max(6, round(chaos_s * _between(draw, 0.08, 0.4)))) + 1):
        # There is little to change before there are versions.
        at_s = draw.uniform(0.0, chaos_s if request > 3 else chaos_s / 5)
        name = CHANGES[0] if request <= 3 else draw.choices(CHANGES[:-1], [2, 5, 3, 2])[0]
        yield Act(0, at_s, name, request)
        if draw.random() < 0.25:
            yield Act(0, at_s + draw.expovariate(0.2), CHANGES[-1], request)


def _arrivals(draw: random.Random, mean_s: float, until_s: float) -> Iterator[float]:
    at_s = draw.expovariate(1 / mean_s)
    while at_s < until_s:
        yield at_s
        at_s += draw.expovariate(1 / mean_s)
