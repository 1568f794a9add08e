"""Model folders: Hugging Face repositories and TensorFlow's SavedModel. Links out of the folder are not followed."""

from __future__ import annotations

import os
from functools import partial
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
_TABLES: Final = frozenset({"saved_model.pb", "fingerprint.pb"})
"""Files of a SavedModel that are looked at as such, and one that holds hashes alone."""
_MARKS: Final = (b"\x80", b"PK\x03\x04", b"\x89HDF", b"GGUF", b"\x7fELF", b"MZ")
"""Beginnings of pickles, archives, HDF5, GGUF and programs."""
_CODE: Final = (".py", ".so", ".dll", ".dylib", ".pyd", ".sh", ".exe", ".jar")


def inspect(path: Path, draft: Draft) -> int:
    """Inspects a folder; the size of its files together in bytes. Raises DataRefusedError."""
    files = _files(path, draft)
    total = sum(file.stat().st_size for file in files)
    names = {file.relative_to(path).as_posix(): file for file in files}
    draft.format = "folder"
    if "saved_model.pb" in names:
        _saved_model(names, draft)
    elif "config.json" in names or "model.safetensors.index.json" in names:
        draft.format = "hugging-face"
        huggingface.inspect(names, draft)
    counted = draft.format if draft.weights else ""
    for name, file in names.items():
        if _is_one_of(name, _CODE):
            draft.suspicious("code-file", name, "is code, which a loader may run (trust_remote_code)")
        elif name not in _TABLES and (_is_one_of(name, _WEIGHTS) or _hidden(file)):
            counted = _weights(name, file, draft, counted)
    if not draft.weights:
        draft.uncovered("no weights were found in the folder")
    return total


def _is_one_of(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _hidden(file: Path) -> bool:
    """Whether a file is what could run code or hold weights, whatever its name says."""
    with opened(file) as source:
        return source.head(4).startswith(_MARKS)


def _files(path: Path, draft: Draft) -> list[Path]:
    """The regular files below a folder, sorted; bounded in count and depth."""
    found: list[Path] = []
    unread = partial(_unread, path, draft)
    for folder, folders, names in os.walk(path, onerror=unread, followlinks=False):
        draft.budget.spend(1 + len(names))
        here = Path(folder)
        if len(here.relative_to(path).parts) >= DIRECTORY_DEPTH:
            draft.uncovered(f"folders deeper than {DIRECTORY_DEPTH} are not looked at")
            folders.clear()
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            file = here / name
            if not _leads_out(file, path, draft) and file.is_file():
                found.append(file)
        for name in folders:
            _leads_out(here / name, path, draft)
    if len(found) > DIRECTORY_FILES:
        draft.uncovered(f"only {DIRECTORY_FILES} of {len(found)} files are looked at")
    return found[:DIRECTORY_FILES]


def _leads_out(file: Path, folder: Path, draft: Draft) -> bool:
    """Whether it is a link out of the folder, which is evidence. One that leads nowhere is none."""
    if not file.is_symlink() or Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        return False
    draft.suspicious("link", file.relative_to(folder).as_posix(), "is a link out of the folder")
    return True


def _unread(folder: Path, draft: Draft, error: OSError) -> None:
    below = Path(error.filename).relative_to(folder).as_posix()
    draft.uncovered(f"the folder {below} cannot be read: {error.strerror}")


def _weights(name: str, file: Path, draft: Draft, counted: str) -> str:
    """One file of weights, as a part of the folder: its tensors and its evidence.

    The same weights may be there in several formats: the first counts. `counted` is that one, "" before
    any; gives it as it is afterwards.
    """
    inner = Draft(draft.budget)
    with opened(file) as source:
        inspect_source(source, inner)
    if inner.weights and not counted:
        draft.note(f"weights from {name} ({inner.format})")
        counted = inner.format
    if inner.format == counted and (not draft.framework or inner.framework == draft.framework):
        draft.weights += inner.weights
        draft.framework = inner.framework
    for finding in inner.findings:
        own = finding.place.startswith(file.name)
        place = f"{name}{finding.place.removeprefix(file.name)}" if own else f"{name}: {finding.place}"
        draft.find(finding.verdict, finding.code, place, finding.detail)
    for text in inner.coverage:
        draft.uncovered(f"{name}: {text}")
    return counted


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
