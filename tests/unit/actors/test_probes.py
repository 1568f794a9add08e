"""What probes measure: the host for real, GPUs from recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.probes.host import HostProbe
from actors.probes.memory import host_memory
from actors.probes.nvml import Nvml, NvmlProbe
from actors.probes.recorded import RecordedNvml
from actors.telemetry import Measure, Probe, TelemetryBehavior
from hivefold.v1 import telemetry_pb2

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "nvml"
OWN = 4242


def gpu_readings(name: str, times: int = 1) -> list[telemetry_pb2.Reading]:
    probe = NvmlProbe(lambda: RecordedNvml(RECORDINGS / f"{name}.json"), lambda: (OWN,))
    probe.open()
    readings = [telemetry_pb2.Reading() for _ in range(times)]
    for reading in readings:
        probe.read(reading)
    probe.close()
    return readings


def test_busy_boards_show_all_users_memory_and_ours_apart() -> None:
    """Utilisation as a ratio, power in watts; the other process counts only in the total."""
    first, second = gpu_readings("two_boards_busy", 2)
    training, shared = first.gpus
    assert training.product == "NVIDIA H200"
    assert training.utilization_ratio == pytest.approx(0.97)
    assert training.power_watts == pytest.approx(641.203)
    assert training.temperature_celsius == 61
    assert shared.memory_used_bytes == 11_168_382_976
    assert shared.memory_own_bytes == 1_073_741_824
    assert second.gpus[0].utilization_ratio == pytest.approx(0.99)


def test_a_partitioned_board_shows_what_it_supports() -> None:
    """What is not supported or hidden stays 0; nothing fails."""
    (gpu,) = gpu_readings("partitioned")[0].gpus
    assert gpu.utilization_ratio == 0
    assert gpu.memory_total_bytes == 85_520_809_984
    assert gpu.memory_own_bytes == 0
    assert gpu.temperature_celsius == 31


def test_a_desktop_board_without_a_power_sensor_is_read() -> None:
    """The rest is there."""
    (gpu,) = gpu_readings("desktop")[0].gpus
    assert gpu.power_watts == 0
    assert gpu.utilization_ratio == pytest.approx(0.03)


def test_nvml_is_shut_down_with_its_probe() -> None:
    """Init and shutdown pair up."""
    nvml = RecordedNvml(RECORDINGS / "desktop.json")
    probe = NvmlProbe(lambda: nvml)
    probe.open()
    assert nvml.running
    probe.close()
    assert not nvml.running


def test_the_host_is_measured(tmp_path: Path) -> None:
    """Values that every host has, and the node's own process."""
    probe = HostProbe((tmp_path,), lambda: {os.getpid(): "node"})
    probe.open()
    reading = telemetry_pb2.Reading()
    probe.read(reading)
    assert reading.cpu_count >= 1
    assert 0 <= reading.cpu_utilization_ratio <= 1
    assert 0 < reading.memory_available_bytes <= reading.memory_total_bytes
    assert reading.disks[0].mount == str(tmp_path)
    assert reading.disks[0].total_bytes >= reading.disks[0].used_bytes > 0
    (process,) = reading.processes
    assert process.pid == os.getpid()
    assert process.role == "node"
    assert process.resident_bytes > 0
    assert process.thread_count >= 1
    probe.close()


def test_a_process_that_ended_is_left_out(tmp_path: Path) -> None:
    """The others are still measured."""
    probe = HostProbe((tmp_path,), lambda: {os.getpid(): "node", 2**22 + 1: "gone"})
    reading = telemetry_pb2.Reading()
    probe.read(reading)
    assert [process.role for process in reading.processes] == ["node"]


class Flaky:
    """A probe that fails when told to."""

    def __init__(self) -> None:
        self.broken = False
        self.closed = False

    def open(self) -> None: ...

    def read(self, reading: telemetry_pb2.Reading) -> None:
        if self.broken:
            raise OSError("sensor gone")
        reading.cpu_count = 8

    def close(self) -> None:
        self.closed = True


def absent() -> Nvml:
    raise ImportError("no module named pynvml")


def test_hardware_that_is_absent_or_fails_leaves_the_rest_of_the_reading() -> None:
    """A reading always comes, with node and time; a probe that recovers is back in it."""
    flaky = Flaky()
    probes: list[Probe] = [NvmlProbe(absent), flaky]
    behavior = TelemetryBehavior("node-a", probes)
    behavior.start()
    assert behavior.receive(Measure(5_000_000)).cpu_count == 8
    flaky.broken = True
    reading = behavior.receive(Measure(7_000_000))
    assert reading.node_id == "node-a"
    assert reading.read_time.ToMicroseconds() == 7_000_000
    assert reading.cpu_count == 0
    flaky.broken = False
    assert behavior.receive(Measure(9_000_000)).cpu_count == 8
    behavior.stop()
    assert flaky.closed


@pytest.mark.gpu
def test_a_real_board_is_read() -> None:
    """On machines that have one."""
    probe = NvmlProbe()
    try:
        probe.open()
    except Exception as error:  # noqa: BLE001 - no library, no driver, no board
        pytest.skip(f"no GPU here: {error}")
    reading = telemetry_pb2.Reading()
    probe.read(reading)
    assert all(gpu.memory_total_bytes > 0 and gpu.product for gpu in reading.gpus)
    probe.close()


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_control_group_bounds_the_memory(tmp_path: Path) -> None:
    """Of version 2: its own and those above it; cache that would be given up is free."""
    listed = tmp_path / "cgroup"
    listed.write_text("0::/team/node\n")
    root = tmp_path / "fs"
    group(root / "team" / "node", memory__max="max", memory__current="5")
    group(root / "team", memory__max="1000000", memory__current="700000", memory__stat="anon 1\ninactive_file 200000\n")
    assert host_memory(listed, root) == (1_000_000, 500_000)


def test_control_groups_of_version_1_bound_it_too(tmp_path: Path) -> None:
    """Seen from inside a container the group's own path is not there: its root is."""
    listed = tmp_path / "cgroup"
    listed.write_text("3:cpu:/\n4:memory:/docker/abc\n")
    group(
        tmp_path / "memory",
        memory__limit_in_bytes="1000000",
        memory__usage_in_bytes="1100000",
        memory__stat="total_inactive_file 50000\n",
    )
    assert host_memory(listed, tmp_path) == (1_000_000, 0)


def test_without_control_groups_the_machine_is_the_bound(tmp_path: Path) -> None:
    """As MemAvailable has it."""
    total, available = host_memory(tmp_path / "none", tmp_path)
    assert 0 < available < total
