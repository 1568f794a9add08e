"""What an .onnx file says of itself, read without running it and without trusting it.

Refused: what is no ONNX model, weights or contexts in other files, operators outside ONNX and ONNX
Runtime's own, functions that call themselves, and anything nested or counted beyond the limits.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivefold.errors import DataRefusedError, Reason
from hivefold.limits import MODEL_BYTES, MODEL_FIELDS
from hivefold.models.scan import ExternalDataError, Scan
from hivefold.models.wire import MalformedError, Span, Wire

_ORT_MAGIC: Final = b"ORTM"
"""ONNX Runtime takes bytes 4 to 8 for its own format's mark, even when the rest is a valid .onnx."""
_FOREIGN: Final = (
    (b"PK\x03\x04", "It is a zip archive, as PyTorch writes: export it with torch.onnx.export."),
    (b"\x80", "It looks like a Python pickle, which is never loaded: export the model to ONNX."),
    (b"\x89HDF", "It is an HDF5 file, as Keras writes: export it with tf2onnx."),
    (b"\x93NUMPY", "It is a NumPy array: give the model here and the array to `job submit`."),
    (b"version https://git-lfs", "It is a Git LFS pointer: run `git lfs pull` and try again."),
    (b"GGUF", "It is a GGUF file: only ONNX models can be registered."),
)
_EXPORT: Final = "Check that the file was copied whole, or export the model again."


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output: element type as "FP32", shape with -1 where any size is accepted."""

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What a model file declares.

    `inputs` are those a caller must give: initializers listed as inputs are left out. `opset` is
    the version of the default operator set, 0 where the file imports none. `parameter_bytes` is the
    size of all tensors stored in the file once unpacked. `operators` are the names of all that occur, at any depth.
    """

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    opset: int
    producer: str
    parameter_bytes: int
    operators: frozenset[str] = frozenset()


def inspect_onnx(path: str | Path) -> OnnxFacts:
    """Reads what a model file declares; memory used does not grow with its weights.

    Raises DataRefusedError: MODEL_INVALID when the file is no model that hivefold runs,
    MODEL_EXTERNAL_DATA when it keeps anything in other files, FILE_UNREADABLE.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            if size == 0:
                raise _invalid(path, "It is empty.")
            if size > MODEL_BYTES:
                raise _invalid(path, f"It has {size} bytes, and ONNX ends at {MODEL_BYTES}: split the model.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _inspect(path, data, size)
    except OSError as error:
        raise DataRefusedError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions.",
            reason=Reason.FILE_UNREADABLE,
            metadata={"path": str(path)},
        ) from error


def _inspect(path: Path, data: mmap.mmap, size: int) -> OnnxFacts:
    if data[4:8] == _ORT_MAGIC:
        raise _invalid(path, "It is in ONNX Runtime's own format: register the .onnx file it was made from.")
    scan = Scan(Wire(data, MODEL_FIELDS))
    try:
        scan.model(Span(0, size))
    except ExternalDataError as error:
        raise DataRefusedError(
            f"{path.name} keeps {error} in another file, which is refused. Save it as one file: "
            f'onnx.save(onnx.load("{path.name}"), "one-file.onnx").',
            reason=Reason.MODEL_EXTERNAL_DATA,
            metadata={"path": str(path)},
        ) from None
    except MalformedError as error:
        raise _invalid(path, f"{_sentence(error)} {_hint(data[:32])}") from None
    return OnnxFacts(
        inputs=tuple(TensorFacts(*facts) for facts in scan.inputs),
        outputs=tuple(TensorFacts(*facts) for facts in scan.outputs),
        opset=scan.opset,
        producer=scan.producer.strip(),
        parameter_bytes=scan.parameter_bytes,
        operators=scan.operators,
    )


def _invalid(path: Path, why: str) -> DataRefusedError:
    return DataRefusedError(
        f"{path.name} is not a model that hivefold can run. {why}",
        reason=Reason.MODEL_INVALID,
        metadata={"path": str(path)},
    )


def _sentence(error: MalformedError) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _hint(head: bytes) -> str:
    for magic, hint in _FOREIGN:
        if head.startswith(magic):
            return hint
    if all(9 <= byte < 127 for byte in head):
        return "It is a text file: give the .onnx file itself."
    return _EXPORT
