"""The page of starts over long logs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.bounded import kept, page
from bench.restarting import MILLION, NOTHING, Found, Start

SOON = Start(serving_s=0.8, leading_s=1.0, megabytes=70.0)
LATE = Start(serving_s=2.9, leading_s=3.4, megabytes=300.0)


def found(*starts: Start, records: int = 0) -> Found:
    return Found(records=records, first=SOON, stopped=list(starts), killed=[SOON])


def test_a_promise_that_was_missed_is_named_with_the_worst_figure() -> None:
    """Of all starts over all logs, and of all memory over that of an empty one: nobody has to look for it."""
    good = page({NOTHING.name: found(SOON), MILLION.name: found(SOON, records=7)}, rounds=1)
    bad = page({NOTHING.name: found(SOON), MILLION.name: found(SOON, LATE, records=7)}, rounds=2)

    assert (good.count("met, at worst"), good.count("MISSED")) == (2, 0)
    assert "MISSED, at worst 3.40 s" in bad
    assert "MISSED, at worst 230 MB" in bad


def test_what_was_found_before_is_read_as_it_was(tmp_path: Path) -> None:
    """Logs may be measured one by one, on different days."""
    before = found(SOON, LATE, records=7)
    (tmp_path / "million.json").write_text(json.dumps(asdict(before)), encoding="utf-8")

    assert kept(tmp_path / "million.json") == before
