"""What a node measured, as OpenTelemetry's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from actors.probes.nvml import NvmlProbe
from actors.probes.recorded import RecordedNvml
from hivefold.v1 import telemetry_pb2
from node import telemetry

ROOT = Path(__file__).resolve().parents[3]
BOARDS = ROOT / "tests" / "fixtures" / "nvml" / "two_boards_busy.json"
Points = dict[str, list[tuple[float, Mapping[str, Any]]]]


def exported(monkeypatch: pytest.MonkeyPatch, reading: telemetry_pb2.Reading | None) -> Points:
    """Every metric that an exporter would get, with its values."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(telemetry, "meter", lambda: provider.get_meter("test"))
    telemetry.export_metrics(lambda: reading)
    data = reader.get_metrics_data()
    points: Points = {}
    for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics) if data else ():
        points[metric.name] = [(p.value, dict(p.attributes or {})) for p in metric.data.data_points]  # type: ignore[union-attr]
    provider.shutdown()
    return points


def measured() -> telemetry_pb2.Reading:
    """A reading in which everything was measured; the GPUs are recorded ones."""
    reading = telemetry_pb2.Reading(cpu_utilization_ratio=0.5, load_average_1m=3, cpu_count=4)
    reading.memory_total_bytes, reading.memory_available_bytes = 1000, 300
    reading.network_received_bytes, reading.network_sent_bytes = 7, 8
    reading.disk_read_bytes, reading.disk_written_bytes = 9, 10
    reading.disks.add(mount="/data", used_bytes=11, total_bytes=12)
    reading.temperatures.add(sensor="core/0", celsius=55)
    reading.processes.add(pid=42, role="node", cpu_cores=2, resident_bytes=90, thread_count=5, open_files=6)
    probe = NvmlProbe(lambda: RecordedNvml(BOARDS), lambda: ())
    probe.open()
    probe.read(reading)
    probe.close()
    return reading


def test_all_that_a_node_measures_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU, memory, disk, network, temperatures, the node's processes, and GPUs with other processes' memory."""
    found = exported(monkeypatch, measured())
    process = {"process.pid": 42, "hivefold.role": "node"}

    assert found["system.cpu.utilization"] == [(0.5, {})]
    assert found["system.memory.usage"] == [
        (700, {"system.memory.state": "used"}),
        (300, {"system.memory.state": "free"}),
    ]
    assert found["system.filesystem.usage"] == [(11, {"system.filesystem.mountpoint": "/data"})]
    assert [value for value, _ in found["system.network.io"]] == [7, 8]
    assert [value for value, _ in found["system.disk.io"]] == [9, 10]
    assert found["hw.temperature"] == [(55, {"hw.id": "core/0"})]
    assert found["process.cpu.utilization"] == [(0.5, process)]
    assert found["process.memory.usage"] == [(90, process)]
    assert found["process.thread.count"] == [(5, process)]
    assert found["process.unix.file_descriptor.count"] == [(6, process)]
    assert [name for name, points in found.items() if name.startswith("hw.gpu") and len(points) != 2] == []
    assert found["hw.gpu.memory.usage"][1][0] == 11_168_382_976
    assert found["hw.gpu.utilization"][0][0] == pytest.approx(0.97)
    assert found["hw.gpu.power"][0][0] == pytest.approx(641.203)
    assert found["hw.gpu.temperature"][0][0] == 61
    assert found["hw.gpu.memory.usage"][0][1]["hw.name"] == "NVIDIA H200"


def test_before_the_first_reading_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No zeros that nobody measured."""
    assert not exported(monkeypatch, None)


def test_the_page_names_every_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/observing.md: those of the nodes, and no other of theirs."""
    page = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
    table = page.split("| metrics of a node |")[1].split("\n\n")[0]
    documented = {piece for piece in table.replace("|", "`").split("`") if "." in piece and " " not in piece}

    assert documented == set(exported(monkeypatch, measured()))
