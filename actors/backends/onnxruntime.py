"""Models in ONNX Runtime, on the CPU."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from actors.tensors import Array
from hivefold.errors import DataRefusedError, Reason
from hivefold.models import TensorFacts

_ELEMENT_TYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_BF16: Final = 16
"""TensorProto.BFLOAT16."""
_FATAL: Final = 4
"""ORT_LOGGING_LEVEL_FATAL."""
_TEXT: Final = 500
"""The runtime's own words are cut here: some name every node of the graph."""
_NUMBER: Final = re.compile(r"-?(?<!\w)\d[\w.+-]*")
"""A number that is no part of a name."""


class OnnxRuntimeBackend:
    """Loads models into ONNX Runtime. `threads` is what one run may use: with more than one, each model has its own."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def open(self, path: Path) -> OnnxRuntimeSession:
        """Loads a verified file. Raises DataRefusedError when the runtime refuses it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL  # its errors are raised, too; printed they would hold rows' values
        # Threads that spin while they wait take the cores from the other nodes of the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:
            raise DataRefusedError(
                f"ONNX Runtime {onnxruntime.__version__} does not load the model: {_words(error)}; "
                "export it for an operator set that this version knows",
                reason=_reason(error, Reason.MODEL_INVALID),
            ) from error
        return OnnxRuntimeSession(session)


class OnnxRuntimeSession:
    """A model in ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = tuple(_facts(argument) for argument in session.get_inputs())
        self._outputs = tuple(_facts(argument) for argument in session.get_outputs())
        self._halves = any(tensor.data_type == "BF16" for tensor in (*self._inputs, *self._outputs))

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """What it must be given."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """What it produces."""
        return self._outputs

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs. Raises DataRefusedError, without their values, when the runtime fails."""
        try:
            if self._halves:
                return self._run_with_halves(outputs, feeds)
            results: list[Array] = self._session.run(outputs, feeds)
        except MemoryError:
            raise
        except Exception as error:
            shapes = ", ".join(str(list(array.shape)) for array in feeds.values())
            raise DataRefusedError(
                f"ONNX Runtime failed on input of shape {shapes}: {_words_without_values(error)}; "
                "check the model on these rows, or send fewer at once",
                reason=_reason(error, Reason.RUNTIME_FAILED),
            ) from error
        return results

    def _run_with_halves(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """As `run`, where NumPy has no type for some tensors: the runtime's own values carry them."""
        values = {
            tensor.name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(feeds[tensor.name]), _BF16
            )
            if tensor.data_type == "BF16"
            else onnxruntime.OrtValue.ortvalue_from_numpy(feeds[tensor.name])
            for tensor in self._inputs
        }
        return [_as_array(value) for value in self._session.run_with_ort_values(outputs, values)]

    def close(self) -> None:
        """Releases its memory."""
        self._session = None


def _facts(argument: Any) -> TensorFacts:
    data_type = _ELEMENT_TYPES.get(argument.type)
    if data_type is None:
        raise DataRefusedError(
            f"{argument.name!r} is a {argument.type}, not a tensor of numbers; export the model without it "
            "(for skl2onnx: zipmap=False)",
            reason=Reason.MODEL_INVALID,
        )
    return TensorFacts(
        argument.name, data_type, tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    )


def _as_array(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    # The runtime gives no view of such values: their bytes are copied while it holds them.
    held = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(held, "<u2").reshape(value.shape())


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_TEXT]


def _words_without_values(error: Exception) -> str:
    """Kernels quote the values that they refuse, and what is said of a failure is recorded for ever: rows are not."""
    where, mark, what = _words(error).rpartition("Status Message:")
    return where + mark + _NUMBER.sub("#", what)


def _reason(error: Exception, otherwise: Reason) -> Reason:
    text = str(error).lower()
    return Reason.OUT_OF_MEMORY if "bad alloc" in text or "failed to allocate" in text else otherwise
