"""What the host does, by psutil: CPU, load, memory, disks, network, temperatures and the node's own processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psutil

from actors.probes.memory import host_memory
from hivefold.v1 import telemetry_pb2

_UNREAL: Final = ("lo", "veth", "docker", "br-", "virbr", "cni", "flannel", "tun", "tap")
"""Interfaces whose bytes are not the host's own or are counted on another one as well."""
_SENSORS: Final = 32
"""Most temperatures in one reading: some boards have hundreds."""
_SLOW_EVERY: Final = 5
"""Disks and temperatures change slowly and cost the most: measured with every fifth reading."""


class HostProbe:
    """Measures the host. `disks` are folders whose file systems are reported; `processes` maps pids to roles."""

    def __init__(self, disks: tuple[Path, ...], processes: Callable[[], Mapping[int, str]]) -> None:
        self._disks = disks
        self._roles = processes
        self._processes: dict[int, psutil.Process] = {}
        self._slow = telemetry_pb2.Reading()
        self._count = 0

    def open(self) -> None:
        """Starts the intervals over which CPU use is measured."""
        psutil.cpu_percent(interval=None)
        self._own(telemetry_pb2.Reading())

    def read(self, reading: telemetry_pb2.Reading) -> None:
        """Fills in everything but the GPUs."""
        memory = host_memory()
        reading.cpu_utilization_ratio = psutil.cpu_percent(interval=None) / 100
        reading.load_average_1m = psutil.getloadavg()[0]
        reading.cpu_count = psutil.cpu_count() or 1
        reading.memory_total_bytes = memory.total_bytes
        reading.memory_available_bytes = memory.available_bytes
        self._network(reading)
        self._disk_traffic(reading)
        self._own(reading)
        if self._count % _SLOW_EVERY == 0:
            self._slow = self._measure_slow()
        self._count += 1
        reading.MergeFrom(self._slow)

    def close(self) -> None:
        """Forgets the processes."""
        self._processes.clear()

    def _network(self, reading: telemetry_pb2.Reading) -> None:
        for name, counters in psutil.net_io_counters(pernic=True).items():
            if not name.startswith(_UNREAL):
                reading.network_received_bytes += counters.bytes_recv
                reading.network_sent_bytes += counters.bytes_sent

    def _disk_traffic(self, reading: telemetry_pb2.Reading) -> None:
        counters = psutil.disk_io_counters()
        if counters is not None:  # some containers show none
            reading.disk_read_bytes = counters.read_bytes
            reading.disk_written_bytes = counters.write_bytes

    def _own(self, reading: telemetry_pb2.Reading) -> None:
        roles = self._roles()
        self._processes = {pid: process for pid, process in self._processes.items() if pid in roles}
        for pid, role in roles.items():
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                self._processes[pid] = process
                with process.oneshot():
                    reading.processes.add(
                        pid=pid,
                        role=role,
                        cpu_cores=process.cpu_percent(interval=None) / 100,
                        resident_bytes=process.memory_info().rss,
                        thread_count=process.num_threads(),
                        open_files=process.num_fds(),
                    )
            except psutil.Error:  # it ended, or belongs to somebody else
                self._processes.pop(pid, None)

    def _measure_slow(self) -> telemetry_pb2.Reading:
        slow = telemetry_pb2.Reading()
        for folder in self._disks:
            usage = psutil.disk_usage(str(folder))
            slow.disks.add(mount=str(folder), used_bytes=usage.used, total_bytes=usage.total)
        sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
        for chip, entries in sensors.items():
            for index, entry in enumerate(entries):
                if len(slow.temperatures) < _SENSORS:
                    slow.temperatures.add(sensor=f"{chip}/{entry.label or index}", celsius=entry.current)
        return slow
