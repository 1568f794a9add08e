"""PyTorch files: zip archives (state dictionaries, whole models, TorchScript, .pt2) and the older pickled form."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from typing import Final

from hivefold.models.passport import exported as program
from hivefold.models.passport.draft import Draft, Weight, joined
from hivefold.models.passport.judge import Judge
from hivefold.models.passport.limits import PASSPORT_DEPTH
from hivefold.models.passport.machine import run
from hivefold.models.passport.pickled import walk
from hivefold.models.passport.source import Source
from hivefold.models.passport.values import (
    Call,
    Global,
    Pairs,
    Persistent,
    Value,
    attributes,
    called,
    entries,
    integers,
)
from hivefold.models.passport.zipped import Archive, Entry
from hivefold.models.wire import MalformedError

_STORAGE: Final = {
    "Bool": ("BOOL", 1), "Byte": ("UINT8", 1), "Char": ("INT8", 1), "Short": ("INT16", 2), "Int": ("INT32", 4),
    "Long": ("INT64", 8), "Half": ("FP16", 2), "Float": ("FP32", 4), "Double": ("FP64", 8), "BFloat16": ("BF16", 2),
    "ComplexFloat": ("COMPLEX64", 8), "ComplexDouble": ("COMPLEX128", 16), "QInt8": ("INT8", 1),
    "QUInt8": ("UINT8", 1), "QInt32": ("INT32", 4),
}  # fmt: skip
_DTYPES: Final = {
    "float32": ("FP32", 4), "float": ("FP32", 4), "float64": ("FP64", 8), "double": ("FP64", 8), "float16": ("FP16", 2),
    "half": ("FP16", 2), "bfloat16": ("BF16", 2), "int64": ("INT64", 8), "long": ("INT64", 8), "int32": ("INT32", 4),
    "int16": ("INT16", 2), "int8": ("INT8", 1), "uint8": ("UINT8", 1), "bool": ("BOOL", 1), "uint16": ("UINT16", 2),
    "uint32": ("UINT32", 4), "uint64": ("UINT64", 8), "complex64": ("COMPLEX64", 8), "float8_e4m3fn": ("FP8", 1),
    "float8_e5m2": ("FP8", 1),
}  # fmt: skip
_REBUILD: Final = frozenset(
    f"torch._utils.{name}"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
)
_PARAMETER: Final = frozenset(
    f"torch._utils.{name}" for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")
)
BUFFERS: Final = re.compile(
    r"(^|\.)(running_mean|running_var|num_batches_tracked|inv_freq|position_ids|token_type_ids|masked_bias|"
    r"attn\.bias|rotary_emb\.\w+|relative_position_index)$"
)
"""Names that PyTorch's and Hugging Face's modules give to buffers: kept with the weights, never trained."""
_WHERE: Final = re.compile(r"(^|/)(data|constants|tensor_constants)/([^/]+)$")
_NATIVE: Final = (".so", ".dll", ".dylib", ".pyd", ".cubin", ".o")


def looks(archive: Archive) -> bool:
    """Whether a zip archive is one that PyTorch writes."""
    return bool(archive.named("data.pkl") or archive.named("archive_format") or archive.named("/constants.pkl")
                or archive.named("serialized_exported_program.json"))  # fmt: skip


def inspect(archive: Archive, draft: Draft, depth: int = 0) -> None:
    """A zip archive of PyTorch. Damage is evidence."""
    draft.framework = "pytorch"
    script = any("/code/" in f"/{name}" for name in archive.entries) and bool(archive.named("constants.pkl"))
    exported = bool(archive.named("archive_format") or archive.named("serialized_exported_program.json"))
    draft.format = "torchscript" if script else "torch-export" if exported else "torch-zip"
    for name in ("version", "archive_version"):
        for entry in archive.named(name)[:1]:
            draft.format_version = _version(archive, entry)
    for entry in archive.entries.values():
        draft.budget.spend()
        _entry(archive, entry, draft, script=script, depth=depth)
    if script:
        draft.uncovered("its TorchScript code, which runs when it is loaded or used, is only looked at for operators")
    if exported:
        program.describe(archive, draft)


def _version(archive: Archive, entry: Entry) -> str:
    try:
        return archive.open(entry).head(20).decode("ascii", "replace").strip()
    except MalformedError:  # said once the entry itself is looked at: nothing may hide the others
        return ""


def inspect_legacy(source: Source, draft: Draft) -> None:
    """The form before PyTorch 1.6: five pickles, then the storages. Damage is evidence."""
    draft.framework, draft.format = "pytorch", "torch-legacy"
    position = 0
    values: list[Value] = []
    for _ in range(5):
        try:
            value, position = run(source, draft.budget, Judge(draft, source.name, provided=True), position)
        except MalformedError as error:
            draft.unknown("pickle-broken", source.name, f"does not read to its end: {error}")
            break
        values.append(value)
    if len(values) > 1:
        known = isinstance(values[1], int) and 0 <= values[1] < 1 << 32
        draft.format_version = f"protocol {values[1]}" if known else ""
    if len(values) > 3:
        _tensors(values[3], draft)
        stored = {w.storage: w for w in draft.weights}
        if position + sum(w.size_bytes for w in stored.values()) > source.size:
            draft.unknown("torch-cut", source.name, "ends before the tensors that it names")


def _entry(archive: Archive, entry: Entry, draft: Draft, *, script: bool, depth: int) -> None:
    """One file of the archive: every pickle is walked, whatever its name is; nothing is taken for data by its name."""
    if entry.folder or not entry.size_bytes:
        return
    if (
        entry.name.endswith(_NATIVE)
        or archive.source.part(entry.name, entry.start, entry.packed_bytes).head(4) == b"\x7fELF"
    ):
        draft.unsafe("native-code", entry.name, "is machine code that the loader runs")
        return
    if "custom_obj" in entry.name:
        draft.suspicious("torch-custom-object", entry.name, "is an object of a class that only its library can read")
    raw = _WHERE.search(entry.name) and not entry.name.endswith((".pkl", ".pt"))
    if raw and archive.source.part(entry.name, entry.start, entry.packed_bytes).head(4) != b"PK\x03\x04":
        return
    try:
        source = archive.open(entry)
    except MalformedError as error:
        draft.uncovered(f"{entry.name}: {error}")
        return
    if source.head(4) == b"PK\x03\x04":
        _nested(source, draft, depth)
    elif entry.name.endswith(".pkl") or (source.head(1) == b"\x80" and source.head(2)[1:] <= b"\x05"):
        judge = Judge(draft, entry.name, provided=True, own_classes="__torch__" if script else "")
        value = walk(source, draft, judge)
        if entry.name.endswith("data.pkl"):
            _tensors(value, draft)
            _check_storages(archive, entry, draft)
    elif script and entry.name.endswith(".py"):
        _code(source, draft)


def _nested(source: Source, draft: Draft, depth: int) -> None:
    if depth >= PASSPORT_DEPTH:
        draft.uncovered(f"{source.name}: archives deeper than {PASSPORT_DEPTH} in each other")
        return
    inner = Draft(draft.budget)
    try:
        inspect(Archive(source, inner), inner, depth + 1)
    except MalformedError as error:
        inner.unknown("zip-broken", source.name, str(error))
    draft.weights += inner.weights
    for finding in inner.findings:
        draft.find(finding.verdict, finding.code, f"{source.name}: {finding.place}", finding.detail)
    for text in inner.coverage:
        draft.uncovered(text)


_OPERATORS: Final = re.compile(rb"\b(?:ops\.(\w+)\.(\w+)|torch\.(\w+))\(")
_FILES: Final = frozenset({"from_file", "save", "load", "_load_from_file", "hub", "load_library"})


def _code(source: Source, draft: Draft) -> None:
    for found in _OPERATORS.finditer(source.head(1 << 20)):
        draft.budget.spend()
        space, name, plain = found[1] or b"", (found[2] or b"").decode(), (found[3] or b"").decode()
        if (plain or name) in _FILES:
            draft.unsafe("torchscript-file", source.name, f"uses the operator {plain or name}, which opens files")
        elif space not in {b"", b"prim", b"aten", b"quantized", b"prepacked", b"torchvision", b"inductor"}:
            draft.suspicious("torchscript-operator", source.name, f"uses the foreign operator {space.decode()}.{name}")
    if source.size > 1 << 20:
        draft.uncovered(f"{source.name}: only the first MiB of code is looked at")


def _check_storages(archive: Archive, pickled: Entry, draft: Draft) -> None:
    """Every tensor's storage must be in the archive and long enough."""
    folder = pickled.name.removesuffix("data.pkl")
    for weight in draft.weights:
        draft.budget.spend()
        if weight.storage.startswith("storage "):
            entry = archive.entries.get(f"{folder}data/{weight.storage.removeprefix('storage ')}")
            if entry is None or entry.size_bytes < weight.size_bytes + _offset_bytes(weight):
                draft.unknown("torch-cut", pickled.name, f"the bytes of {weight.name} are missing or too few")
                return


def _offset_bytes(weight: Weight) -> int:
    return weight.offset * (weight.size_bytes // weight.elements) if weight.elements else 0


def _tensors(value: Value, draft: Draft) -> None:
    """Adds every tensor below a value, by the path of its keys."""
    seen: set[int] = set()
    pending: list[tuple[str, Value]] = [("", value)]
    while pending:
        path, item = pending.pop()
        if not isinstance(item, Call | Pairs | tuple) and not hasattr(item, "items"):
            continue
        draft.budget.spend()
        tensor = _weight_of(item)
        if tensor is None and id(item) in seen:
            continue
        seen.add(id(item))
        _note_class(item, draft)
        if tensor is not None:
            trained = tensor.trained or not BUFFERS.search(path)
            draft.weights.append(replace(tensor, name=path, trained=trained))
        else:
            pending += reversed(list(_below(path, item)))


def _below(path: str, item: Value) -> list[tuple[str, Value]]:
    """What an object contains, with its path: entries, items, attributes, arguments."""
    below: list[tuple[str, Value]] = [
        (joined(path, key, "."), entry) for key, entry in entries(item) if isinstance(key, str)
    ]
    match item:
        case tuple():
            below += [(path, part) for part in item]
        case Call():
            state = attributes(item)
            for key, entry in entries(state):
                if isinstance(key, str):
                    plain = key in {"_parameters", "_buffers", "_modules"}
                    below.append((path if plain else joined(path, key, "."), entry))
            below += [(path, part) for part in item.items]
            if isinstance(item.arguments, tuple):
                below += [(path, part) for part in item.arguments]
        case Pairs():
            pass
        case _:
            below += [(path, part) for part in getattr(item, "items", [])]
    return below


def _weight_of(item: Value, *, parameter: bool = False, depth: int = 0) -> Weight | None:
    """A rebuilt tensor, `trained` where it is surely a parameter; None for anything else."""
    if not isinstance(item, Call) or not isinstance(item.arguments, tuple) or not item.arguments:
        return None
    if depth > PASSPORT_DEPTH:
        return None
    if called(item) in _PARAMETER:
        return _weight_of(item.arguments[0], parameter=True, depth=depth + 1)
    if called(item) == "torch._tensor._rebuild_from_type_v2" and len(item.arguments) > 2:
        return _weight_of(Call(item.arguments[0], item.arguments[2], item.position), depth=depth + 1)
    if called(item) not in _REBUILD or len(item.arguments) < 3:
        return None
    offset, shape, kept = item.arguments[1], integers(item.arguments[2]), _storage(item.arguments[0])
    if shape is None or kept is None or not isinstance(offset, int):
        return None
    data_type, width, key = kept
    last = item.arguments[6] if called(item).endswith("_v3") and len(item.arguments) > 6 else None
    if isinstance(last, Global) and last.module == "torch" and last.name in _DTYPES:
        data_type, width = _DTYPES[last.name]
    return Weight("", data_type, shape, prod(shape) * width, key, offset, parameter)


def _storage(value: Value) -> tuple[str, int, str] | None:
    """Element type, bytes of an element and key: `("storage", type, key, location, elements)`."""
    if not isinstance(value, Persistent) or not isinstance(value.identity, tuple) or len(value.identity) < 5:
        return None
    kind, key = value.identity[1], value.identity[2]
    if not isinstance(kind, Global) or not isinstance(key, str):
        return None
    data_type, width = _STORAGE.get(kind.name.removesuffix("Storage"), ("UINT8", 1))
    return data_type, width, f"storage {key}"


def _note_class(item: Value, draft: Draft) -> None:
    name = called(item)
    if name.startswith("torch.nn.modules."):
        kind = name.rpartition(".")[2]
        draft.operators[kind] = draft.operators.get(kind, 0) + 1
    elif name and not draft.architecture_name and isinstance(item, Call) and item.state is not None:
        own = not name.startswith(("torch.", "collections.", "numpy.", "copyreg."))
        draft.architecture_name = name.rpartition(".")[2] if own else ""
