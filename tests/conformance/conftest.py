"""What the conformance suites share."""

from __future__ import annotations

from tests.fixtures.bus import bus, nats_bus

__all__ = ["bus", "nats_bus"]
