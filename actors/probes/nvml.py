"""What NVIDIA GPUs do, by NVML: utilisation, memory including other processes', power, temperature."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from hivefold.v1 import telemetry_pb2

_TEMPERATURE_GPU: Final = 0


class Nvml(Protocol):
    """The functions of nvidia-ml-py's module `pynvml` that are used here. Each may raise `NVMLError`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: D102, N802 - named by NVML
    def nvmlShutdown(self) -> None: ...  # noqa: D102, N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...  # noqa: D102, N802
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: D102, N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Iterable[Any]: ...  # noqa: D102, N802


def installed_nvml() -> Nvml:
    """nvidia-ml-py's module. Raises ImportError where it is not installed (extra `gpu`)."""
    import pynvml

    module: Nvml = pynvml
    return module


class NvmlProbe:
    """Measures every GPU that the driver shows. What a GPU does not support stays 0."""

    def __init__(
        self,
        load: Callable[[], Nvml] = installed_nvml,
        own_pids: Callable[[], Iterable[int]] = lambda: (os.getpid(),),
    ) -> None:
        self._load = load
        self._own_pids = own_pids
        self._nvml: Nvml | None = None
        self._devices: list[tuple[Any, str, str]] = []

    def open(self) -> None:
        """Starts NVML. Raises ImportError or NVMLError where there is no GPU to speak of."""
        nvml = self._load()
        nvml.nvmlInit()
        self._nvml = nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = _text(nvml.nvmlDeviceGetName(handle))
            self._devices.append((handle, _text(nvml.nvmlDeviceGetUUID(handle)), name))

    def read(self, reading: telemetry_pb2.Reading) -> None:
        """Fills in the GPUs."""
        assert self._nvml is not None
        own = frozenset(self._own_pids())
        for index, (handle, uuid, product) in enumerate(self._devices):
            gpu = reading.gpus.add(index=index, uuid=uuid, product=product)
            self._measure(self._nvml, handle, gpu, own)

    def close(self) -> None:
        """Ends NVML."""
        nvml, self._nvml = self._nvml, None
        self._devices.clear()
        if nvml is not None:
            nvml.nvmlShutdown()

    def _measure(self, nvml: Nvml, handle: Any, gpu: telemetry_pb2.GpuReading, own: frozenset[int]) -> None:
        def ask(call: Callable[[], Any]) -> Any:
            try:
                return call()
            except nvml.NVMLError:  # not supported here (MIG, virtual GPUs, older boards), or lost for a moment
                return None

        if (rates := ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))) is not None:
            gpu.utilization_ratio = rates.gpu / 100
        if (memory := ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))) is not None:
            gpu.memory_used_bytes = memory.used
            gpu.memory_total_bytes = memory.total
        if (milliwatts := ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))) is not None:
            gpu.power_watts = milliwatts / 1000
        if (celsius := ask(lambda: nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU))) is not None:
            gpu.temperature_celsius = celsius
        # Unknown (None) inside containers that hide other processes' memory.
        running = ask(lambda: tuple(nvml.nvmlDeviceGetComputeRunningProcesses(handle))) or ()
        gpu.memory_own_bytes = sum(process.usedGpuMemory or 0 for process in running if process.pid in own)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
