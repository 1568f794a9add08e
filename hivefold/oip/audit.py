"""How much of a model's inference is recorded: its label `audit`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

AUDIT_LABEL: Final = "audit"


class Level(StrEnum):
    """What is recorded (docs/inference-audit.md)."""

    NONE = "none"
    WINDOWS = "windows"
    FULL = "full"
