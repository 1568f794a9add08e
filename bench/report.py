"""Writes bench/RESULTS.md: what was promised first, then the figures, then how to repeat them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.results import Better, Measure, Run, Section, Target, missed
from bench.statistics import Summary

_HEAD: Final = """# Benchmarks

One machine: hivefold, its peers and a physical floor, each alone on it in turn, several rounds, the median
with the least and the most in brackets; what is compared was measured in one run. hivefold stores every
decision with fsync before it acts; the peers store nothing unless said otherwise. Ratios are taken round by
round, so they hold on other machines far better than the figures do. Written by `make bench`; the raw numbers
are in `results.json`.
"""

_REPEAT: Final = """## How to repeat

    make bench                                        # everything, about a quarter of an hour
    .venv/bin/python -m bench --list                  # what there is
    .venv/bin/python -m bench --only tasks,replay     # a part; prints, and leaves this file as it is
    .venv/bin/python -m bench --only tasks --keep     # a part again, in place of what this file says of it

The peers are installed into `.bench-venv` and `.bench-mlserver`, apart from hivefold's own environment, at the
versions above. The load generator of `serving` is built with Go.
Close everything else first: on two cores every other process shows.
"""


def report(run: Run) -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, _targets(run.sections), _bad_news(run)]
    parts += [_section(section) for section in run.sections]
    parts += [_machine(run), _REPEAT]
    return "\n".join(parts)


def number(value: float) -> str:
    """A number as people read it: three significant digits, thousands apart."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{decimals}f}"


def spread(summary: Summary, unit: str) -> str:
    """The median with its unit, then the least and the most where there were several."""
    text = f"{number(summary.median)} {unit}".strip()
    if summary.count == 1:
        return text
    return f"{text} ({number(summary.least)} - {number(summary.most)})"


def _targets(sections: Sequence[Section]) -> str:
    lines = ["## Promises", "", "| | measured | promised | |", "|---|---|---|---|"]
    for section in sections:
        lines += [_target_row(target) for target in section.targets]
    return "\n".join([*lines, ""])


def _target_row(target: Target) -> str:
    word = "at least" if target.better is Better.MORE else "at most"
    found = spread(Measure("", "", target.unit, target.values, target.better).summary(), target.unit)
    bound = f"{word} {number(target.bound)} {target.unit}".strip()
    return f"| {target.name} | {found} | {bound} | {'met' if target.met else '**missed**'} |"


def _bad_news(run: Run) -> str:
    lines = ["## What was missed or got worse", ""]
    for section, target in missed(run.sections):
        found = number(Measure("", "", "", target.values, target.better).summary().median)
        lines.append(f"- missed: {target.name} ({section.key}): {found} against {number(target.bound)} {target.unit}")
    lines += [
        f"- worse than before by {(worsening.factor - 1) * 100:.0f} %: {worsening.name} ({section.key})"
        for section in run.sections
        for worsening in section.worse
    ]
    lines += [f"- not measured: {failed.title} ({failed.key}): {failed.reason}" for failed in run.failed]
    if len(lines) == 2:
        lines.append("Nothing.")
    return "\n".join([*lines, ""])


def _section(section: Section) -> str:
    lines = [
        f"## {section.title}",
        "",
        section.how,
        "",
        f"Measured {section.measured}.",
        "",
        "| | | |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_name(measure)} | {measure.who} | {spread(measure.summary(), measure.unit)} |"
        for measure in section.measures
    ]
    return "\n".join([*lines, ""])


def _name(measure: Measure) -> str:
    return f"{measure.name} ({measure.note})" if measure.note else measure.name


def _machine(run: Run) -> str:
    lines = [
        "## Machine and versions",
        "",
        f"All of it last measured in one go: {run.start_time}, {run.duration_s / 60:.0f} minutes.",
        "",
        "| | |",
        "|---|---|",
    ]
    lines += [f"| {key} | {value} |" for key, value in {**run.machine, **run.versions}.items()]
    return "\n".join([*lines, ""])
