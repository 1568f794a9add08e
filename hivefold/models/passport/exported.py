"""torch.export's .pt2: the program's signature, a JSON text in the archive."""

from __future__ import annotations

from math import prod
from typing import Any, Final

from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.jsontext import parsed
from hivefold.models.passport.zipped import Archive
from hivefold.models.wire import MalformedError

_TYPES: Final = {
    1: ("UINT8", 1), 2: ("INT8", 1), 3: ("INT16", 2), 4: ("INT32", 4), 5: ("INT64", 8), 6: ("FP16", 2), 7: ("FP32", 4),
    8: ("FP64", 8), 12: ("BOOL", 1), 13: ("BF16", 2), 28: ("UINT16", 2), 29: ("FP8", 1), 30: ("FP8", 1),
}  # fmt: skip
"""torch._export.serde.schema.ScalarType."""
_WIDTHS: Final = dict(_TYPES.values())


_SPACES: Final = frozenset({"", "aten", "higher_order", "prims", "quantized_decomposed"})


def describe(archive: Archive, draft: Draft) -> None:
    """Inputs, outputs, parameters and operators. Damage is evidence."""
    named = [*archive.named("models/model.json"), *archive.named("serialized_exported_program.json")]
    for entry in named[:1]:
        try:
            program = parsed(archive.open(entry))
        except MalformedError as error:
            draft.unknown("malformed", entry.name, str(error))
            return
        _module(program, draft)


def _module(program: dict[str, Any], draft: Draft) -> None:
    module = _at(program, "graph_module")
    graph, signature = _at(module, "graph"), _at(module, "signature")
    tensors = _at(graph, "tensor_values")
    for node in _list(graph, "nodes"):
        draft.budget.spend()
        target = str(node.get("target") if isinstance(node, dict) else "")
        space, name = _operator(target)
        draft.operators[name] = draft.operators.get(name, 0) + 1
        if space not in _SPACES:
            draft.suspicious("torch-operator", "the graph", f"uses the foreign operator {target}")
    _inputs(_list(signature, "input_specs"), tensors, draft)
    for given in _list(signature, "output_specs"):
        made = _at(_at(_at(given, "user_output"), "arg"), "as_tensor").get("name")
        if isinstance(made, str):
            draft.add_port(draft.outputs, made, *_facts(tensors, made))


def _operator(target: str) -> tuple[str, str]:
    """ "torch.ops.aten.relu.default" as its space and name; other targets are Python's own operators."""
    parts = target.split(".")
    return (parts[2], parts[3]) if target.startswith("torch.ops.") and len(parts) > 3 else ("", parts[-1])


def _inputs(given: list[Any], tensors: dict[str, Any], draft: Draft) -> None:
    weights: list[Weight] = []
    for spec in given:
        draft.budget.spend()
        user = _at(_at(_at(spec, "user_input"), "arg"), "as_tensor").get("name")
        if isinstance(user, str):
            draft.add_port(draft.inputs, user, *_facts(tensors, user))
        for kind in ("parameter", "buffer"):
            part = _at(spec, kind)
            value, path = _at(part, "arg").get("name"), part.get(f"{kind}_name")
            if isinstance(value, str) and isinstance(path, str):
                data_type, shape = _facts(tensors, value)
                if min(shape, default=0) < 0:
                    draft.unknown("malformed", path, "is a parameter without a size")
                    continue
                size = prod(shape) * _WIDTHS.get(data_type, 4)
                weights.append(Weight(path, data_type, shape, size, trained=kind == "parameter"))
    if weights:
        draft.weights[:] = weights


def _facts(tensors: dict[str, Any], name: str) -> tuple[str, tuple[int, ...]]:
    facts = _at(tensors, name)
    kind = facts.get("dtype")
    data_type = _TYPES.get(kind, ("", 0))[0] if isinstance(kind, int) else ""
    shape = []
    for size in _list(facts, "sizes")[:32]:
        value = size.get("as_int") if isinstance(size, dict) else None
        shape.append(value if type(value) is int and 0 <= value < 1 << 48 else -1)
    return data_type, tuple(shape)


def _at(given: Any, key: str) -> dict[str, Any]:
    found = given.get(key) if isinstance(given, dict) else None
    return found if isinstance(found, dict) else {}


def _list(given: Any, key: str) -> list[Any]:
    found = given.get(key) if isinstance(given, dict) else None
    return found if isinstance(found, list) else []
