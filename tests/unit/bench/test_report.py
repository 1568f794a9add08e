from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.report import number, report, spread
from bench.results import (
    Better,
    Failed,
    Measure,
    Run,
    Section,
    Target,
    Worsening,
    compared,
    missed,
    run_from_json,
    run_to_json,
    with_part,
)
from bench.statistics import summarize


def section(rate: float = 20_000, *, wait_ms: float = 2.0) -> Section:
    return Section(
        key="tasks",
        title="Tasks that do nothing",
        how="As users do.",
        targets=(
            Target("tasks a second", "/s", (rate, rate, rate), 5000, Better.MORE),
            Target("round trip", "ms", (wait_ms,), 3, Better.LESS),
        ),
        measures=(
            Measure("tasks a second", "hivefold", "/s", (rate, rate * 1.1, rate * 0.9), Better.MORE),
            Measure("round trip", "hivefold", "ms", (wait_ms,), Better.LESS, "p50"),
            Measure("tasks a second", "Ray", "/s", (2000,), Better.MORE),
        ),
    )


def run_of(*sections: Section) -> Run:
    return Run("2026-11-21 12:00 UTC", 600, {"cores": "2"}, {"hivefold": "0.1.0"}, sections)


def test_promises_come_before_figures() -> None:
    """The page begins with what was promised; machine and the way to repeat come last."""
    page = report(run_of(section()))

    parts = ["## Promises", "## What was missed", "## Tasks that do nothing", "## Machine", "## How to repeat"]
    assert sorted(parts, key=page.index) == parts


def test_each_promise_says_whether_it_was_kept() -> None:
    """Kept and missed ones are told apart, with what was measured and what was promised."""
    page = report(run_of(section(wait_ms=4)))

    assert "| tasks a second | 20,000 /s (20,000 - 20,000) | at least 5,000 /s | met |" in page
    assert "| round trip | 4.00 ms | at most 3.00 ms | **missed** |" in page
    assert "- missed: round trip (tasks): 4.00 against 3.00 ms" in page


def test_a_good_run_has_nothing_to_confess() -> None:
    """Where nothing was missed and nothing got worse the page says so."""
    assert "or got worse\n\nNothing.\n" in report(run_of(section()))


def test_what_could_not_be_measured_is_named() -> None:
    """A benchmark that failed is not silently left out."""
    run = replace(run_of(section()), failed=(Failed("replay", "Cold replay", "the broker did not start"),))

    assert "- not measured: Cold replay (replay): the broker did not start" in report(run)


def test_only_our_own_figures_can_get_worse() -> None:
    """A worse median of hivefold is told in percent; peers and small changes are not."""
    before, after = run_of(section()), run_of(section(rate=10_000, wait_ms=2.1))

    found = compared(before, after, tolerance=0.15)

    assert found.sections[0].worse == (Worsening("tasks a second", 2.0),)
    assert "- worse than before by 100 %: tasks a second (tasks)" in report(found)


def test_a_run_survives_json() -> None:
    """What is read from results.json equals what was written."""
    run = replace(
        run_of(replace(section(), worse=(Worsening("rate", 2.0),), measured="in May")), failed=(Failed("a", "b", "c"),)
    )

    assert run_from_json(json.loads(json.dumps(run_to_json(run)))) == run


def test_a_part_that_is_measured_again_takes_the_place_of_what_was() -> None:
    """The other sections stay as they are, new ones come last, and each says when it was measured."""
    machine = {"processor": "a", "cores": "2", "memory": "1 GiB"}
    old, other = replace(section(), measured="in May"), replace(section(), key="other", measured="in May")
    whole = replace(run_of(old, other), machine=machine, failed=(Failed("new", "b", "c"),))
    again, new = replace(section(rate=9), measured="in June"), replace(section(), key="new", measured="in June")
    part = replace(run_of(again, new), machine=machine, start_time="in June")

    run = with_part(whole, part)

    assert run.sections == (again, other, new)
    assert (run.start_time, run.failed) == (whole.start_time, ())
    assert "Measured in June." in report(run)


def test_a_part_from_another_machine_is_refused() -> None:
    """Figures of two machines in one table would be compared."""
    machine = {"processor": "a", "cores": "2", "memory": "1 GiB"}
    whole = replace(run_of(section()), machine=machine)

    with pytest.raises(ValueError, match="cores 2, not 4: measure all of it here with `make bench`"):
        with_part(whole, replace(whole, machine={**machine, "cores": "4"}))


def test_missed_targets_are_those_whose_median_breaks_the_bound() -> None:
    """Neither the best nor the worst round decides."""
    target = Target("rate", "/s", (1, 6, 7), 5, Better.MORE)

    assert target.met
    assert missed([section(), section(wait_ms=3.01)]) == [(section(wait_ms=3.01), section(wait_ms=3.01).targets[1])]


def test_numbers_have_three_digits_that_count() -> None:
    """Large numbers are grouped, small ones keep their decimals."""
    shown = [number(value) for value in (0, 0.1234, 1.234, 12.34, 123.4, 1234567)]

    assert shown == ["0", "0.123", "1.23", "12.3", "123", "1,234,567"]


def test_one_value_has_no_spread() -> None:
    """The least and the most are shown where there were several values."""
    assert spread(summarize([2.0]), "s") == "2.00 s"
    assert spread(summarize([1.0, 2.0, 4.0]), "s") == "2.00 s (1.00 - 4.00)"
