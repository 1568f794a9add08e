"""The telemetry behaviour: asks its probes what the hardware does, one reading at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from hivefold.v1 import telemetry_pb2

_log = structlog.get_logger(__name__)


class Probe(Protocol):
    """One kind of hardware. May raise anything: a reading goes out without that probe's part."""

    def open(self) -> None:
        """Gets ready to measure."""
        ...

    def read(self, reading: telemetry_pb2.Reading) -> None:
        """Fills in its part."""
        ...

    def close(self) -> None:
        """Releases what `open` took."""
        ...


@dataclass(frozen=True, slots=True)
class Measure:
    """Take a reading; `now_us` is the time that it carries."""

    now_us: int


class TelemetryBehavior:
    """Measures with each probe that works; one that fails is said so once and asked again the next time."""

    def __init__(self, node_id: str, probes: Sequence[Probe]) -> None:
        self._node_id = node_id
        self._probes = probes
        self._open: list[Probe] = []
        self._failing: set[int] = set()

    def start(self) -> None:
        """Opens the probes; those that cannot be are left out."""
        for probe in self._probes:
            try:
                probe.open()
            except Exception as error:  # noqa: BLE001 - hardware that is not there must not stop the rest
                _log.info("probe.absent", probe=type(probe).__name__, error=str(error))
            else:
                self._open.append(probe)

    def receive(self, message: Measure) -> telemetry_pb2.Reading:
        """One reading."""
        reading = telemetry_pb2.Reading(node_id=self._node_id)
        reading.read_time.FromMicroseconds(message.now_us)
        for index, probe in enumerate(self._open):
            try:
                probe.read(reading)
            except Exception as error:  # noqa: BLE001 - as above
                if index not in self._failing:
                    _log.warning("probe.failed", probe=type(probe).__name__, error=str(error))
                self._failing.add(index)
            else:
                self._failing.discard(index)
        return reading

    def stop(self) -> None:
        """Closes the probes."""
        opened, self._open = self._open, []
        for probe in opened:
            probe.close()
