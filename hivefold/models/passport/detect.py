"""Tells what a file is by its bytes, and has it inspected."""

from __future__ import annotations

from typing import Final

from hivefold.models.passport import gguf, hdf5, keras, onnx, pickled, protobuf, safetensors, torch
from hivefold.models.passport.draft import Draft
from hivefold.models.passport.source import Source
from hivefold.models.passport.zipped import Archive
from hivefold.models.wire import MalformedError

_TORCH: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The number with which PyTorch's older files begin, behind the protocol of its pickle."""
_PICKLED: Final = frozenset({"pickle", "joblib", "torch-legacy"})
_ZIP_END: Final = b"PK\x05\x06"
_TAIL: Final = 66_000
_OTHERS: Final = (
    (b"version https://git-lfs", "git-lfs", "a Git LFS pointer, not the file: run `git lfs pull`"),
    (b"\x93NUMPY", "numpy", "a NumPy array, not a model"),
    (b"ORTM", "ort", "ONNX Runtime's own format: inspect the .onnx file it was made from"),
    (b"TFL3", "tflite", "a TensorFlow Lite model, which is not read"),
    (b"%PDF", "pdf", "a PDF document, not a model"),
)


def inspect_source(source: Source, draft: Draft) -> None:
    """Inspects a file. What does not read is evidence in the draft, never an error."""
    try:
        _inspect(source, draft)
    except MalformedError as error:
        draft.unknown("malformed", source.name, f"does not read as {draft.format}: {error}")
    if draft.format not in _PICKLED:
        pickled.hidden(source, draft)
    if source.head(4) != b"PK\x03\x04" and source.find(_ZIP_END, source.size - _TAIL, source.size) >= 0:
        draft.suspicious("polyglot", source.name, "ends as a zip archive: other loaders may read another file in it")


def _inspect(source: Source, draft: Draft) -> None:
    head = source.head(16)
    if not head:
        draft.format = "empty"
        draft.uncovered("it is empty")
    elif head.startswith(b"PK\x03\x04"):
        _zip(source, draft)
    elif head.startswith(b"GGUF"):
        gguf.inspect(source, draft)
    elif hdf5.looks(source):
        keras.inspect_hdf5(source, draft)
    elif head[0] == 0x80 and head[2:].startswith(_TORCH):
        torch.inspect_legacy(source, draft)
    elif head[0] == 0x80 and head[1:2] <= b"\x05":
        pickled.inspect(source, draft)
    elif safetensors.looks(source):
        safetensors.inspect(source, draft)
    elif any(head.startswith(magic) for magic in pickled.PACKED):
        pickled.inspect_packed(source, draft)
    else:
        _without_magic(source, draft)


def _zip(source: Source, draft: Draft) -> None:
    draft.format = "zip"
    archive = Archive(source, draft)
    if torch.looks(archive):
        torch.inspect(archive, draft)
    elif keras.looks(archive):
        keras.inspect_archive(archive, draft)
    else:
        draft.uncovered("a zip archive that is no model known here")
        torch.inspect(archive, draft)
        draft.framework, draft.format = "", "zip"


def _without_magic(source: Source, draft: Draft) -> None:
    """Formats that have no mark of their own: protobuf messages, and pickles of protocol 0 and 1."""
    for magic, name, what in _OTHERS:
        if magic in {source.head(len(magic)), source.head(4 + len(magic))[4:]}:
            draft.format = name
            draft.uncovered(f"it is {what}")
            return
    match protobuf.kind(source):
        case "onnx":
            onnx.inspect(source, draft)
        case "saved-model":
            protobuf.inspect_saved_model(source, draft)
        case "graph":
            protobuf.inspect_graph(source, draft)
        case _ if pickled.looks(source):
            pickled.inspect(source, draft)
        case _:
            draft.uncovered("it is no format known here")
