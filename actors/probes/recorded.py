"""GPUs from a file: NVML's answers, written down once and replayed where there is no board.

A recording is JSON: `devices`, each with what its functions answer in order, the last answer
repeating; null stands for "not supported". Replaying below the probe tests the probe itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class NotSupportedError(Exception):
    """What a board does not know; NVML_ERROR_NOT_SUPPORTED."""


@dataclass(slots=True)
class _Device:
    answers: dict[str, list[Any]]
    asked: dict[str, int]

    def answer(self, function: str) -> Any:
        answers = self.answers.get(function, [None])
        index = self.asked.get(function, 0)
        self.asked[function] = index + 1
        answer = answers[min(index, len(answers) - 1)]
        if answer is None:
            raise NotSupportedError(f"{function} is not supported by this board")
        return answer


class RecordedNvml:
    """The functions of `pynvml` that actors.probes.nvml uses, over a recording."""

    NVMLError: type[Exception] = NotSupportedError

    def __init__(self, path: Path) -> None:
        recording = json.loads(path.read_text(encoding="utf-8"))
        self._devices = [_Device(device, {}) for device in recording["devices"]]
        self.running = False

    def nvmlInit(self) -> None:  # noqa: D102, N802 - named by NVML, here and below
        self.running = True

    def nvmlShutdown(self) -> None:  # noqa: D102, N802
        self.running = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: D102, N802
        return len(self._devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Device:  # noqa: D102, N802
        return self._devices[index]

    def nvmlDeviceGetUUID(self, handle: _Device) -> str:  # noqa: D102, N802
        return str(handle.answer("uuid"))

    def nvmlDeviceGetName(self, handle: _Device) -> str:  # noqa: D102, N802
        return str(handle.answer("name"))

    def nvmlDeviceGetUtilizationRates(self, handle: _Device) -> SimpleNamespace:  # noqa: D102, N802
        return SimpleNamespace(**handle.answer("utilization"))

    def nvmlDeviceGetMemoryInfo(self, handle: _Device) -> SimpleNamespace:  # noqa: D102, N802
        return SimpleNamespace(**handle.answer("memory"))

    def nvmlDeviceGetPowerUsage(self, handle: _Device) -> int:  # noqa: D102, N802
        return int(handle.answer("power_milliwatts"))

    def nvmlDeviceGetTemperature(self, handle: _Device, _sensor: int) -> int:  # noqa: D102, N802
        return int(handle.answer("temperature"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: _Device) -> list[SimpleNamespace]:  # noqa: D102, N802
        return [SimpleNamespace(**process) for process in handle.answer("processes")]
