"""Fleets that integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hivefold.client import connect
from tests.fixtures.onnx_models import doubling_model
from tests.integration.fleets import RunningFleet, running_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """One fleet of three nodes for all tests of the session that leave it as they found it.

    Tests that kill or stop processes start their own with tests.integration.fleets.running_fleet.
    """
    with running_fleet(tmp_path_factory.mktemp("fleet") / "hf") as running:
        yield running


@pytest.fixture(scope="session")
def registered(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the shared fleet that doubles rows of four FP32."""
    path = tmp_path_factory.mktemp("models") / "double.onnx"
    doubling_model(path)
    with connect(directory=fleet.directory) as client:
        return client.models.add(path, "registered").name
