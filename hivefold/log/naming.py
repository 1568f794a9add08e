"""Names of the streams that hold the log."""

from __future__ import annotations

import re
from typing import Final

STREAM: Final = "HF_LOG"
_NAME: Final = re.compile(rf"{STREAM}(?:_(\d{{4,}}))?")


def stream_name(number: int) -> str:
    """The stream of a segment: HF_LOG for the first, HF_LOG_0002 for the second."""
    return STREAM if number == 1 else f"{STREAM}_{number:04d}"


def segment_number(name: str) -> int:
    """The segment that a stream holds; 0 for another stream."""
    found = _NAME.fullmatch(name)
    return int(found[1] or 1) if found else 0
