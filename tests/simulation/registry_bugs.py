"""Bugs of the registry of models to plant; tests.simulation.bugs has the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from coordinator.core import decide_models
from coordinator.dispatch import Dispatcher


@contextmanager
def registry_changed_again() -> Iterator[None]:
    """A repeated request moves an alias back that somebody else has moved meanwhile."""
    with patch.object(decide_models, "_repeated", lambda *_: None):
        yield


@contextmanager
def lost_orders_not_sent_again() -> Iterator[None]:
    """A node that did not hear what it is to keep never hears of it."""
    with patch.object(Dispatcher, "resend_keeps", lambda _self, _node_id: None):
        yield


REGISTRY_BUGS = (
    registry_changed_again,
    lost_orders_not_sent_again,
)
