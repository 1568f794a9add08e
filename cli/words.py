"""Numbers, sizes and times as people read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP]?)(i?)B?)?", re.IGNORECASE)
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(number: float) -> str:
    """12345 as "12,345"."""
    return f"{number:,.0f}"


def size(number_of_bytes: float) -> str:
    """Bytes in the largest unit that leaves at least 1: "1.5 GiB"."""
    value = float(number_of_bytes)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def parse_size(text: str) -> int:
    """Bytes from "1048576", "512 MiB", "1.5GiB" or "2GB" (powers of 1024 with an i, of 1000 without).

    Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: give bytes, or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB")
    power = " KMGTP".index((match[2] or " ").upper())
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def span(seconds: float) -> str:
    """A duration: "740 us", "85 ms", "3.2 s", "4m 05s", "2h 10m", "3d 4h"."""
    if seconds < 0.001:
        return f"{seconds * 1_000_000:.0f} us"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def ago(seconds: float) -> str:
    """How long something is past: "4m 05s ago"; "now" within a second."""
    return "now" if seconds < 1 else f"{span(int(seconds) if seconds < 60 else seconds).replace('.0', '')} ago"


def rate(per_second: float, unit: str) -> str:
    """A rate: "12,300 rows/s"; small ones with a decimal."""
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.1f} {unit}/s"


def percent(ratio: float) -> str:
    """A ratio from 0 to 1 as "42 %"."""
    return f"{ratio * 100:.0f} %"


def pairs(labels: Mapping[str, str]) -> str:
    """Labels as "a=1 b=2", by name."""
    return " ".join(f"{name}={labels[name]}" for name in sorted(labels))
