"""Imports a daemon's code fast and small: a process starts within its first second, and rests in little memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_UNUSED: Final = ("rich",)
"""What libraries import where it is there: structlog takes half a second and 6 MB, for tracebacks on a console."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Imports within do without what daemons have no use for, as if it were not installed, and without the collector.

    For the first imports of a process only: what is loaded already stays.
    """
    absent = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # None: an import of it fails
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in absent:
            del sys.modules[name]
