"""Fleets that integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.fleets import RunningFleet, running_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """One fleet of three nodes for all tests of the session that leave it as they found it.

    Tests that kill or stop processes start their own with tests.integration.fleets.running_fleet.
    """
    with running_fleet(tmp_path_factory.mktemp("fleet") / "hf") as running:
        yield running
