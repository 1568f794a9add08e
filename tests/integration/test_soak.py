"""A short campaign of the soak in every run of the tests: `make soak KILLS=1000` is the long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hivefold.failpoints import Failpoint, parse
from tests.soak.campaign import COORDINATOR_POINTS, NODE_POINTS, Settings, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_fleet_that_is_killed_and_paused_keeps_every_promise(tmp_path: Path) -> None:
    """kill -9 at the worst points and SIGSTOP: nothing acknowledged is lost, nothing done twice, replay equals live."""
    said: list[str] = []
    outcome = asyncio.run(run(Settings(tmp_path, kills=20, seconds=75, seed=3, coordinators=1), said.append))

    assert outcome.faults == [], said
    assert outcome.comparisons > 0
    assert outcome.jobs > 0
    assert outcome.tally.kills >= 10, said


def test_every_failpoint_is_armed_in_the_campaign() -> None:
    """A point that nobody arms shows nothing."""
    assert {*COORDINATOR_POINTS, *NODE_POINTS} == set(Failpoint)
    assert parse("mid_batch=0.5, after_term=1") == {Failpoint.MID_BATCH: 0.5, Failpoint.AFTER_TERM: 1.0}
