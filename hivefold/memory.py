"""The memory of a process: what its C allocator keeps and gives back, and how much it has."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Freed memory that an allocator's arena keeps at its top; more goes back to the system."""
_MAPPED_BYTES: Final = 8 * 1024 * 1024
"""Blocks from this size on are mapped and given back one by one."""


def keep_freed_memory() -> bool:
    """Changes this process's malloc; whether it could (glibc only). For daemons and the command line.

    glibc gives memory back from 128 KiB on, so that each message of a stream costs hundreds of page
    faults: measured, a gRPC upload takes three times the CPU time without this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES) and libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def give_back_freed() -> None:
    """Gives what the allocator keeps back to the system: after something large was freed (glibc only).

    Measured: without this a model of 34 MB that is unloaded leaves up to 100 MB with the process.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def allocated_bytes() -> int:
    """Bytes that this process has from its allocator now, whatever the system gave it; 0 where that is not known.

    Takes 2 us. NumPy's arrays and the runtimes' weights and arenas are in it, Python's own small objects are not.
    """
    count = _allocation_count()
    return count() if count is not None else 0


def peak_resident_bytes() -> int:
    """The most memory that this process was ever resident with; 0 where that is not known (Linux only).

    getrusage's ru_maxrss is no such figure: it counts what the parent had when it started this process, too.
    """
    return _status_bytes("VmHWM")


class PeakResident:
    """The most memory that the process was resident with between `__init__` and `rise_bytes` (Linux only)."""

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR_REFS.write_text("5", encoding="ascii")  # proc(5): resets the peak
        self._before_bytes = _status_bytes("VmRSS")

    def rise_bytes(self) -> int:
        """By how much it rose at most; 0 where that is not known."""
        return max(0, peak_resident_bytes() - self._before_bytes)


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@cache
def _allocation_count() -> Callable[[], int] | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)  # since glibc 2.33
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2

    def count() -> int:
        facts = mallinfo2()
        return int(facts.uordblks + facts.hblkhd)

    return count


def _status_bytes(name: str) -> int:
    """A size from proc_pid_status(5); 0 where there is none."""
    with suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
