"""Model folders: Hugging Face repositories and TensorFlow's SavedModel. Links out of the folder are not followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hivefold.models.passport import huggingface, protobuf, variables
from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Draft
from hivefold.models.passport.limits import DIRECTORY_DEPTH, DIRECTORY_FILES
from hivefold.models.passport.source import opened
from hivefold.models.wire import MalformedError

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".keras", ".pkl", ".joblib",
                   ".msgpack", ".ckpt", ".pb", ".npz", ".npy", ".pickle")  # fmt: skip
_CODE: Final = (".py", ".so", ".dll", ".dylib", ".pyd", ".sh", ".exe", ".jar")


def inspect(path: Path, draft: Draft) -> int:
    """Inspects a folder; the size of its files together in bytes. Raises DataRefusedError."""
    files = _files(path, draft)
    total = sum(file.stat().st_size for file in files)
    names = {file.relative_to(path).as_posix(): file for file in files}
    if "saved_model.pb" in names:
        _saved_model(names, draft)
        return total
    draft.format = "folder"
    if "config.json" in names or "model.safetensors.index.json" in names:
        draft.format = "hugging-face"
        huggingface.inspect(names, draft)
    for name, file in names.items():
        if name.endswith(_CODE):
            draft.suspicious("code-file", name, "is code, which a loader may run (trust_remote_code)")
        elif name.endswith(_WEIGHTS):
            _weights(name, file, draft)
    if not draft.weights:
        draft.uncovered("no weights were found in the folder")
    return total


def _files(path: Path, draft: Draft) -> list[Path]:
    """The regular files below a folder, sorted; bounded in count and depth."""
    found: list[Path] = []
    for folder, folders, names in os.walk(path, followlinks=False):
        draft.budget.spend(1 + len(names))
        here = Path(folder)
        if len(here.relative_to(path).parts) >= DIRECTORY_DEPTH:
            draft.uncovered(f"folders deeper than {DIRECTORY_DEPTH} are not looked at")
            folders.clear()
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            file = here / name
            if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                draft.suspicious("link", file.relative_to(path).as_posix(), "is a link out of the folder")
            elif file.is_file():
                found.append(file)
    if len(found) > DIRECTORY_FILES:
        draft.uncovered(f"only {DIRECTORY_FILES} of {len(found)} files are looked at")
    return found[:DIRECTORY_FILES]


def _weights(name: str, file: Path, draft: Draft) -> None:
    """One file of weights, as a part of the folder: its tensors and its evidence."""
    inner = Draft(draft.budget)
    with opened(file) as source:
        inspect_source(source, inner)
    if inner.weights and (not draft.weights or inner.framework == draft.framework or not draft.framework):
        # The same weights may be there in several formats: the first counts.
        if not draft.weights:
            draft.note(f"weights from {name} ({inner.format})")
        kinds = {note.rpartition("(")[2].rstrip(")") for note in draft.notes if note.startswith("weights from")}
        if inner.format in kinds:
            draft.weights += inner.weights
            draft.framework = draft.framework or inner.framework
    for finding in inner.findings:
        own = finding.place.startswith(file.name)
        place = f"{name}{finding.place.removeprefix(file.name)}" if own else f"{name}: {finding.place}"
        draft.find(finding.verdict, finding.code, place, finding.detail)
    for text in inner.coverage:
        draft.uncovered(f"{name}: {text}")


def _saved_model(names: dict[str, Path], draft: Draft) -> None:
    with opened(names["saved_model.pb"]) as source:
        try:
            protobuf.inspect_saved_model(source, draft)
        except MalformedError as error:
            draft.unknown("malformed", source.name, f"does not read as a SavedModel: {error}")
    index = names.get("variables/variables.index")
    if index is None or draft.weights:
        return
    with opened(index) as source:
        try:
            variables.inspect(source, draft)
        except MalformedError as error:
            draft.unknown("malformed", source.name, f"its variables do not read: {error}")
