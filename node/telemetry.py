"""Readings on their way: from the telemetry actor to NATS, to the heartbeat and to OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog
from opentelemetry.metrics import CallbackOptions, Observation

from actors.bridge import ask
from actors.runtime import ActorRef
from actors.telemetry import Measure
from hivefold.bus.port import Message, Signals
from hivefold.clock import Clock
from hivefold.errors import HivefoldError
from hivefold.limits import PROBES_ASK_MS, READING_MS
from hivefold.observe import meter
from hivefold.v1 import telemetry_pb2

_log = structlog.get_logger(__name__)

Reading = telemetry_pb2.Reading
Measured = Iterable[tuple[float, dict[str, str | int]]]
"""Values with their attributes."""


@dataclass(slots=True)
class TelemetryLoop:
    """Takes a reading every READING_MS, hands it to `on_reading` and publishes it on telemetry.<node>."""

    node_id: str
    signals: Signals
    sensor: ActorRef[Measure, Reading]
    clock: Clock
    on_reading: Callable[[Reading], None]

    async def measure(self) -> None:
        """One reading. A failing sensor is logged by its actor; the node goes on without."""
        try:
            reading = await ask(self.sensor, Measure(self.clock.now_us()), deadline_ms=PROBES_ASK_MS)
        except HivefoldError as error:
            _log.warning("telemetry.missed", error=error.message)
            return
        self.on_reading(reading)
        self.signals.publish(Message(f"telemetry.{self.node_id}", reading.SerializeToString()))

    async def run(self) -> None:
        """Measures for ever."""
        while True:
            await self.measure()
            await asyncio.sleep(READING_MS / 1000)


def export_metrics(latest: Callable[[], Reading | None]) -> None:
    """Registers the latest reading as OpenTelemetry metrics; they cost nothing unless an exporter is configured."""
    instruments = meter()
    for name, unit, description, values in _GAUGES:
        instruments.create_observable_gauge(name, [_callback(latest, values)], unit, description)
    for name, unit, description, values in _COUNTERS:
        instruments.create_observable_counter(name, [_callback(latest, values)], unit, description)


def _callback(
    latest: Callable[[], Reading | None], values: Callable[[Reading], Measured]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        reading = latest()
        return [] if reading is None else [Observation(value, attributes) for value, attributes in values(reading)]

    return observe


def _gpus(value: Callable[[telemetry_pb2.GpuReading], float]) -> Callable[[Reading], Measured]:
    return lambda reading: [
        (value(gpu), {"hw.id": gpu.uuid or str(gpu.index), "hw.name": gpu.product}) for gpu in reading.gpus
    ]


def _processes(value: Callable[[telemetry_pb2.ProcessReading], float]) -> Callable[[Reading], Measured]:
    return lambda reading: [
        (value(process), {"process.pid": process.pid, "hivefold.role": process.role}) for process in reading.processes
    ]


def _memory_limit(reading: Reading) -> Measured:
    return [(reading.memory_total_bytes, {})]


def _memory_usage(reading: Reading) -> Measured:
    available = reading.memory_available_bytes
    used = reading.memory_total_bytes - available
    return [(used, {"system.memory.state": "used"}), (available, {"system.memory.state": "free"})]


def _process_cpu(reading: Reading) -> Measured:
    return _processes(lambda process: process.cpu_cores / max(1, reading.cpu_count))(reading)


# Names of the OpenTelemetry semantic conventions (system, process, hardware).
_GAUGES: Final[tuple[tuple[str, str, str, Callable[[Reading], Measured]], ...]] = (
    ("system.cpu.utilization", "1", "CPU in use over all cores.", lambda r: [(r.cpu_utilization_ratio, {})]),
    ("system.linux.load_1m", "{thread}", "Load average over one minute.", lambda r: [(r.load_average_1m, {})]),
    ("system.memory.limit", "By", "Memory in all.", _memory_limit),
    ("system.memory.usage", "By", "Memory by state.", _memory_usage),
    (
        "system.filesystem.usage",
        "By",
        "Disk space in use.",
        lambda r: [(disk.used_bytes, {"system.filesystem.mountpoint": disk.mount}) for disk in r.disks],
    ),
    ("process.cpu.utilization", "1", "CPU in use by a process of the node, over all cores.", _process_cpu),
    ("process.memory.usage", "By", "Resident memory of a process.", _processes(lambda process: process.resident_bytes)),
    ("process.thread.count", "{thread}", "Threads of a process.", _processes(lambda process: process.thread_count)),
    (
        "process.unix.file_descriptor.count",
        "{file_descriptor}",
        "Open files of a process.",
        _processes(lambda process: process.open_files),
    ),
    (
        "hw.temperature",
        "Cel",
        "Temperature of a sensor.",
        lambda r: [(sensor.celsius, {"hw.id": sensor.sensor}) for sensor in r.temperatures],
    ),
    ("hw.gpu.utilization", "1", "Share of time with a kernel running.", _gpus(lambda gpu: gpu.utilization_ratio)),
    ("hw.gpu.memory.usage", "By", "GPU memory in use by all processes.", _gpus(lambda gpu: gpu.memory_used_bytes)),
    ("hw.gpu.memory.limit", "By", "GPU memory in all.", _gpus(lambda gpu: gpu.memory_total_bytes)),
    ("hw.gpu.power", "W", "Power drawn by a GPU.", _gpus(lambda gpu: gpu.power_watts)),
    ("hw.gpu.temperature", "Cel", "Temperature of a GPU.", _gpus(lambda gpu: gpu.temperature_celsius)),
)
_COUNTERS: Final[tuple[tuple[str, str, str, Callable[[Reading], Measured]], ...]] = (
    (
        "system.network.io",
        "By",
        "Bytes over all real interfaces.",
        lambda r: [
            (r.network_received_bytes, {"network.io.direction": "receive"}),
            (r.network_sent_bytes, {"network.io.direction": "transmit"}),
        ],
    ),
    (
        "system.disk.io",
        "By",
        "Bytes from and to disks.",
        lambda r: [
            (r.disk_read_bytes, {"disk.io.direction": "read"}),
            (r.disk_written_bytes, {"disk.io.direction": "write"}),
        ],
    ),
)
