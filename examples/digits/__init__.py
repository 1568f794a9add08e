"""A digits classifier from start to end: train, export to ONNX, make rows to classify.

    python -m examples.digits DIR [--rows N] [--seed N]

writes DIR/digits.onnx, DIR/rows.npy (float32 [N, 64]) and DIR/labels.npy (int64 [N], the truth).
"""

from __future__ import annotations

from examples.digits.data import Digits, load, make_rows
from examples.digits.training import Trained, train

__all__ = ["Digits", "Trained", "load", "make_rows", "train"]
