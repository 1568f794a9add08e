"""How much memory the host could give: to anybody, and to this process by its control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import psutil

_GROUPS: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60
"""Version 1 writes a number that no machine has for no limit."""


class HostMemory(NamedTuple):
    """Memory in bytes: in all, and what could be had without swapping; other processes are counted."""

    total_bytes: int
    available_bytes: int


def host_memory(groups: Path = _GROUPS, root: Path = _ROOT) -> HostMemory:
    """What this process could have: the machine's memory (MemAvailable), or less where a control group is tighter.

    Every group above the process counts, its own and its parents', of version 2 and 1. Page cache that the kernel
    would give up is free.
    """
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for folder, limit_file, usage_file, cache_key in _groups(groups, root):
        limit = _number(folder / limit_file)
        if limit is None or limit >= _UNLIMITED:
            continue
        used = (_number(folder / usage_file) or 0) - _cache(folder / "memory.stat", cache_key)
        total, available = min(total, limit), min(available, max(0, limit - used))
    return HostMemory(total, available)


def _groups(groups: Path, root: Path) -> list[tuple[Path, str, str, str]]:
    """The folders of the groups that bound this process: with their files for limit and use, and the cache's key."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[tuple[Path, str, str, str]] = []
    for line in lines:
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0":
            base, files = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            base, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's: then its group is mounted as the root.
        above = [each for each in (folder, *folder.parents) if each.is_relative_to(base)]
        found += [(each, *files) for each in above if (each / files[1]).exists()]
    return found


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def _cache(file: Path, key: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key} ")), 0)
