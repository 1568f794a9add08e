"""What a run of the benchmarks found, as values and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
class Worsening:
    """A measure of hivefold whose median is worse than in the run before; `factor` is how many times, above 1."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class Section:
    """The results of one benchmark: how it was measured, what was promised, what was found."""

    key: str
    title: str
    how: str
    targets: tuple[Target, ...]
    measures: tuple[Measure, ...]
    measured: str = ""
    """When, which hivefold, in how many rounds."""
    worse: tuple[Worsening, ...] = ()
    """What is clearly worse than in the run before."""


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
        measured=data["measured"],
        worse=tuple(Worsening(**worsening) for worsening in data["worse"]),
    )


def _typed(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "values": tuple(data["values"]), "better": Better(data["better"])}


def with_part(whole: Run, part: Run) -> Run:
    """The whole run with the sections that were measured again in place of the old ones.

    Raises ValueError where the part is from another machine: nobody could compare its sections with the rest.
    """
    for name in ("processor", "cores", "memory"):
        if whole.machine[name] != part.machine[name]:
            raise ValueError(
                f"the results are of a machine with {name} {whole.machine[name]}, not {part.machine[name]}: "
                "measure all of it here with `make bench`"
            )
    again = {section.key: section for section in part.sections}
    known = {section.key for section in whole.sections}
    return replace(
        part,
        start_time=whole.start_time,
        duration_s=whole.duration_s,
        sections=(
            *(again.get(section.key, section) for section in whole.sections),
            *(section for section in part.sections if section.key not in known),
        ),
        failed=(*(failed for failed in whole.failed if failed.key not in again), *part.failed),
    )


def compared(before: Run, after: Run, *, tolerance: float) -> Run:
    """`after` with what of hivefold is worse in it than before by more than `tolerance` (0.15 is 15 %)."""
    known = {(s.key, m.name): m for s in before.sections for m in s.measures if m.who == "hivefold"}
    return replace(
        after,
        sections=tuple(
            replace(
                section,
                worse=tuple(
                    Worsening(measure.name, factor)
                    for measure in section.measures
                    if measure.who == "hivefold"
                    and (factor := _factor(known.get((section.key, measure.name)), measure)) > 1 + tolerance
                ),
            )
            for section in after.sections
        ),
    )


def _factor(before: Measure | None, after: Measure) -> float:
    """How many times worse it is; at most 1 where it is not."""
    if before is None:
        return 1.0
    then, now = before.summary().median, after.summary().median
    if not then or not now:
        return 1.0  # no factor says how much worse than nothing it is
    return then / now if after.better is Better.MORE else now / then


def missed(sections: Sequence[Section]) -> list[tuple[Section, Target]]:
    """The targets that were not met, each with its section."""
    return [(section, target) for section in sections for target in section.targets if not target.met]
