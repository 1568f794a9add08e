"""How much memory an ONNX graph's intermediate tensors take at once, by shape inference for a number of rows.

Tensors live from the operator that makes them to the last that reads them; the runtime may share
or keep more. A tensor that the runtime would compute while it loads, from numbers alone, is
evidence when it is huge: that is how a small file takes a machine down.
"""

from __future__ import annotations

from math import prod
from typing import Final

from hivefold.models.passport.draft import Draft
from hivefold.models.passport.graph import TYPES, Graph, Node
from hivefold.models.passport.shapes import Known, infer

_BITS: Final = dict(TYPES.values())
_FOLDED_BYTES: Final = 1 << 30
"""Most bytes of a tensor that is computed from constants."""
_HUGE_BYTES: Final = 1 << 40


def measure(graph: Graph, draft: Draft) -> None:
    """Fills in `activation_bytes`, and evidence."""
    rows = draft.batch_rows
    known = {
        stored.name: Known(stored.shape, stored.data_type, stored.values, constant=True)
        for stored in graph.stored.values()
    }
    for name, data_type, shape in graph.inputs:
        if name not in known:
            known[name] = Known(tuple(rows if size < 0 else size for size in shape), data_type)
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    ends = {name for name, _, _ in graph.outputs}
    live: dict[str, int] = {}
    total = peak = missing = 0
    for index, node in enumerate(graph.nodes):
        draft.budget.spend()
        found = _outputs(node, known, graph, rows)
        missing += sum(1 for name in node.outputs if name and name not in found)
        known.update(found)
        for name, facts in found.items():
            size = _size(facts)
            _judge(node, name, facts, size, draft)
            total += size - live.get(name, 0)
            live[name] = size
        peak = max(peak, total)
        for name in node.inputs:
            if last.get(name) == index and name not in ends:
                total -= live.pop(name, 0)
    draft.activation_bytes = peak if peak or not missing else None
    if missing:
        draft.note(f"the shapes of {missing} tensors are not known: activations count the others")


def _outputs(node: Node, known: dict[str, Known], graph: Graph, rows: int) -> dict[str, Known]:
    """What is known of a node's outputs: inferred, or else as the file declares them."""
    given = [known.get(name) for name in node.inputs]
    constant = bool(
        node.operator == "Constant" or (given and all(facts is not None and facts.constant for facts in given))
    )
    found: dict[str, Known] = {}
    inferred = infer(node, given)
    for index, name in enumerate(node.outputs):
        if not name:
            continue
        if index < len(inferred) and (facts := inferred[index]) is not None:
            found[name] = Known(facts.shape, facts.data_type, facts.values, constant=constant)
        elif name in graph.declared:
            data_type, shape = graph.declared[name]
            found[name] = Known(tuple(rows if size < 0 else size for size in shape), data_type, constant=constant)
    return found


def _size(facts: Known) -> int:
    return prod(facts.shape) * _BITS.get(facts.data_type, 32) // 8


def _judge(node: Node, name: str, facts: Known, size: int, draft: Draft) -> None:
    if facts.constant and size > _FOLDED_BYTES:
        draft.unsafe("onnx-bomb", name, f"{node.operator} makes {size} bytes from numbers alone while the model loads")
    elif size > _HUGE_BYTES:
        draft.unsafe("onnx-bomb", name, f"{node.operator} makes a tensor of {size} bytes")
