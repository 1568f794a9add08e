"""What a run of the benchmarks found, as values and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bench.statistics import Summary, summarize


class Better(StrEnum):
    """Which way is better."""

    MORE = "more"
    LESS = "less"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity, measured in several rounds. `who` is "hivefold", a peer, or a floor."""

    name: str
    who: str
    unit: str
    values: tuple[float, ...]
    better: Better
    note: str = ""

    def summary(self) -> Summary:
        """Median and spread."""
        return summarize(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that was promised, and the values that are held against it (their median counts)."""

    name: str
    unit: str
    values: tuple[float, ...]
    bound: float
    better: Better

    @property
    def met(self) -> bool:
        """Whether the median keeps the bound."""
        median = summarize(self.values).median
        return median >= self.bound if self.better is Better.MORE else median <= self.bound


@dataclass(frozen=True, slots=True)
class Section:
    """The results of one benchmark: how it was measured, what was promised, what was found."""

    key: str
    title: str
    how: str
    targets: tuple[Target, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A benchmark that could not be carried out, and why."""

    key: str
    title: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmarks on one machine."""

    start_time: str
    duration_s: float
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    sections: tuple[Section, ...]
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class Worsening:
    """A measure of hivefold that is clearly worse than in the run before."""

    section: str
    measure: Measure
    before: float

    @property
    def factor(self) -> float:
        """How many times worse, above 1."""
        now = self.measure.summary().median
        return self.before / now if self.measure.better is Better.MORE else now / self.before


def run_to_json(run: Run) -> dict[str, Any]:
    """The run as JSON takes it."""
    return asdict(run)


def run_from_json(data: Mapping[str, Any]) -> Run:
    """The run that `run_to_json` wrote. Raises KeyError or ValueError when it is none."""
    return Run(
        start_time=data["start_time"],
        duration_s=data["duration_s"],
        machine=data["machine"],
        versions=data["versions"],
        sections=tuple(_section(section) for section in data["sections"]),
        failed=tuple(Failed(**failed) for failed in data["failed"]),
    )


def _section(data: Mapping[str, Any]) -> Section:
    return Section(
        key=data["key"],
        title=data["title"],
        how=data["how"],
        targets=tuple(Target(**_typed(target)) for target in data["targets"]),
        measures=tuple(Measure(**_typed(measure)) for measure in data["measures"]),
    )


def _typed(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "values": tuple(data["values"]), "better": Better(data["better"])}


def worsened(before: Run, after: Run, *, tolerance: float) -> list[Worsening]:
    """Measures of hivefold whose median is worse than before by more than `tolerance` (0.15 is 15 %)."""
    known = {(s.key, m.name): m for s in before.sections for m in s.measures if m.who == "hivefold"}
    found: list[Worsening] = []
    for section in after.sections:
        for measure in section.measures:
            old = known.get((section.key, measure.name))
            if measure.who != "hivefold" or old is None:
                continue
            worsening = Worsening(section.key, measure, old.summary().median)
            if worsening.factor > 1 + tolerance:
                found.append(worsening)
    return found


def missed(sections: Sequence[Section]) -> list[tuple[Section, Target]]:
    """The targets that were not met, each with its section."""
    return [(section, target) for section in sections for target in section.targets if not target.met]
