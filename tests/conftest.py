"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from hivefold.clock import ManualClock
from hivefold.entropy import SeededEntropy
from tests.fixtures.nats import nats_server  # noqa: F401 - a fixture for all

# Two shared cores make single examples slow now and then: that says nothing about the code.
settings.register_profile("home", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("home"), print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the transcripts of tests/scenarios anew")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def entropy() -> SeededEntropy:
    """The same random bytes in each run."""
    return SeededEntropy(1)
