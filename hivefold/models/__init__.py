"""Model files, inspected without running them."""

from __future__ import annotations

from hivefold.models.onnx import OnnxFacts, TensorFacts, inspect_onnx

__all__ = ["OnnxFacts", "TensorFacts", "inspect_onnx"]
