"""Makes a failing scenario small: as few acts and as simple a network as still break the same promise."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.simulation.scenario import ASPECTS, Scenario
from tests.simulation.world import Outcome, simulate

_MOST_LINES = 50


@dataclass(slots=True)
class Shrinking:
    """The smallest failing run so far, and how many more may be tried."""

    failing: Outcome
    budget: int

    def _breaks_alike(self, scenario: Scenario) -> bool:
        if not self.budget:
            return False
        self.budget -= 1
        outcome = simulate(scenario)
        if not outcome.broken or promise(outcome.broken) != promise(self.failing.broken):
            return False
        self.failing = outcome
        return True

    def simplify(self) -> None:
        """Drops what came too late to matter, then aspects, then acts: in halves, in quarters, one by one."""
        self._keep([act.number for act in self.failing.scenario.acts if act.at_s <= self.failing.simulated_s])
        for aspect in ASPECTS:
            if self.failing.scenario.simplified(aspect) != self.failing.scenario:
                self._breaks_alike(self.failing.scenario.simplified(aspect))
        size = len(self.failing.scenario.acts)
        while size > 1 and self.budget:
            size = (size + 1) // 2
            self._drop_pieces(size)
        while self.budget and self._drop_pieces(1):
            pass

    def _drop_pieces(self, size: int) -> bool:
        """Tries to do without each run of `size` acts; whether any was dropped."""
        dropped = False
        start = 0
        while start < len(numbers := [act.number for act in self.failing.scenario.acts]) and self.budget:
            if self._keep(numbers[:start] + numbers[start + size :]):
                dropped = True
            else:
                start += size
        return dropped

    def _keep(self, numbers: list[int]) -> bool:
        scenario = self.failing.scenario.keeping(frozenset(numbers))
        return scenario != self.failing.scenario and self._breaks_alike(scenario)


def shrunk(outcome: Outcome, runs: int = 250) -> Outcome:
    """The smallest run found that breaks the same promise, with at most so many tries."""
    shrinking = Shrinking(outcome, runs)
    shrinking.simplify()
    return shrinking.failing


def promise(broken: str) -> str:
    """Which promise was broken, without the names and numbers of this run."""
    return re.sub(r"[^\s:]*[0-9][^\s:]*", "#", broken)[:60]


def command(scenario: Scenario, bug: str | None) -> str:
    """What to type to see this run again."""
    parts = [f"make sim SEED={scenario.seed}", f"KEEP={ranges(sorted(act.number for act in scenario.acts))}"]
    if scenario.plain:
        parts.append(f"PLAIN={','.join(scenario.plain)}")
    return " ".join([*parts, *([f"BUG={bug}"] if bug else [])])


def ranges(numbers: list[int]) -> str:
    """Ascending numbers as "1-3,7"; "0" when there are none."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "0"


def numbers(text: str) -> frozenset[int]:
    """What `ranges` wrote."""
    pairs = [part.partition("-") for part in text.split(",")]
    return frozenset(n for first, _, last in pairs for n in range(int(first), int(last or first) + 1))


def excerpt(trace: list[str]) -> list[str]:
    """At most _MOST_LINES of a trace: without warnings where it is long, and then its beginning and more of its end."""
    lines = [line[:160] for line in trace]
    if len(lines) > _MOST_LINES:
        lines = [line for line in lines if " warning: " not in line]
    if len(lines) <= _MOST_LINES:
        return lines
    head = 12
    return [*lines[:head], f"           ... {len(lines) - _MOST_LINES + 1} lines ...", *lines[head + 1 - _MOST_LINES :]]
