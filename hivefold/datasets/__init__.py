"""Data sets in files, read with bounded memory, and output files, written as streams."""

from __future__ import annotations

from hivefold.datasets.array import open_array
from hivefold.datasets.opening import open_data_set
from hivefold.datasets.source import DataSetSource

__all__ = ["DataSetSource", "open_array", "open_data_set"]
