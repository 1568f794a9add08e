"""Shapes of what ONNX operators make, by the rules of ONNX's operator pages; None where a rule is missing.

Small whole-number tensors keep their values, because shapes are computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Final, TypeAlias

from hivefold.models.passport.graph import TYPES, Node
from hivefold.models.passport.trust import words

_SMALL: Final = 64
_LARGEST: Final = 1 << 62
_OPERAND: Final = 1 << 40
"""Numbers beyond that are no shapes: products of products would grow without end."""
_RANK: Final = 32


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a tensor. `constant`: computed from numbers in the file alone."""

    shape: tuple[int, ...]
    data_type: str = "FP32"
    values: tuple[float, ...] | None = None
    constant: bool = False


Given: TypeAlias = Sequence[Known | None]
Rule: TypeAlias = Callable[[Node, list[Known]], list[Known] | None]


def infer(node: Node, given: Given) -> list[Known | None]:
    """What a node makes, as far as it can be told; [] where not at all."""
    rule = _RULES.get(node.operator)
    needed = _OPTIONAL.get(node.operator, len(given))
    if rule is None or any(facts is None for facts in given[:needed]):
        return []
    present = [facts or Known(()) for facts in given]
    try:
        made = rule(node, present)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return []
    return [facts if len(facts.shape) <= _RANK and _sane(facts.shape) else None for facts in made or []]


def _sane(shape: tuple[int, ...]) -> bool:
    return all(0 <= size < _LARGEST for size in shape)


def _same(_: Node, given: list[Known]) -> list[Known]:
    first = given[0]
    return [Known(first.shape, first.data_type)]


def _identity(_: Node, given: list[Known]) -> list[Known]:
    return [given[0]]


def _broadcast(node: Node, given: list[Known]) -> list[Known]:
    shape = _together([facts.shape for facts in given])
    first = given[1] if node.operator == "Where" else given[0]
    kind = "BOOL" if node.operator in _COMPARISONS else first.data_type
    return [Known(shape, kind, _computed(node.operator, given, shape))]


def _computed(operator: str, given: list[Known], shape: tuple[int, ...]) -> tuple[float, ...] | None:
    """Arithmetic on shapes themselves."""
    if len(given) != 2 or prod(shape) > _SMALL or len(shape) > 1 or operator not in _ARITHMETIC:
        return None
    left, right = given[0].values, given[1].values
    if left is None or right is None:
        return None
    size = prod(shape)
    if any(abs(number) > _OPERAND for number in (*left, *right)):
        return None
    pairs = zip(left * (size if len(left) == 1 else 1), right * (size if len(right) == 1 else 1), strict=True)
    return tuple(_ARITHMETIC[operator](a, b) for a, b in pairs)


def _together(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Shapes broadcast as NumPy does."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


def _cast(node: Node, given: list[Known]) -> list[Known]:
    kind = TYPES.get(node.number("to", 0), ("", 0))[0] or given[0].data_type
    return [Known(given[0].shape, kind, given[0].values)]


def _matmul(_: Node, given: list[Known]) -> list[Known]:
    left, right = given[0].shape, given[1].shape
    if len(left) == 1 or len(right) == 1:
        shape = (*left[:-1], *right[:-2], *right[-1:]) if len(right) > 1 else left[:-1]
        return [Known(shape, given[0].data_type)]
    return [Known((*_together([left[:-2], right[:-2]]), left[-2], right[-1]), given[0].data_type)]


def _gemm(node: Node, given: list[Known]) -> list[Known]:
    left, right = given[0].shape, given[1].shape
    rows = left[1] if node.number("transA", 0) else left[0]
    return [Known((rows, right[0] if node.number("transB", 0) else right[1]), given[0].data_type)]


def _conv(node: Node, given: list[Known]) -> list[Known]:
    data, kernel = given[0].shape, given[1].shape
    spatial = _windows(node, data[2:], kernel[2:])
    return [Known((data[0], kernel[0], *spatial), given[0].data_type)]


def _conv_transposed(node: Node, given: list[Known]) -> list[Known]:
    data, kernel = given[0].shape, given[1].shape
    rank = len(data) - 2
    strides, pads = _many(node, "strides", rank, 1), _many(node, "pads", 2 * rank, 0)
    extra, dilations = _many(node, "output_padding", rank, 0), _many(node, "dilations", rank, 1)
    sizes = [
        (data[2 + i] - 1) * strides[i] + extra[i] + (kernel[2 + i] - 1) * dilations[i] + 1 - pads[i] - pads[rank + i]
        for i in range(rank)
    ]
    return [Known((data[0], kernel[1] * node.number("group", 1), *sizes), given[0].data_type)]


def _pool(node: Node, given: list[Known]) -> list[Known]:
    data = given[0].shape
    kernel = tuple(int(size) for size in node.numbers.get("kernel_shape", ()))
    facts = Known((*data[:2], *_windows(node, data[2:], kernel)), given[0].data_type)
    return [facts, Known(facts.shape, "INT64")][: max(1, len(node.outputs))]


def _windows(node: Node, data: tuple[int, ...], kernel: tuple[int, ...]) -> list[int]:
    """How many places a window has, in each dimension."""
    rank = len(data)
    strides, pads = _many(node, "strides", rank, 1), _many(node, "pads", 2 * rank, 0)
    dilations = _many(node, "dilations", rank, 1)
    if node.texts.get("auto_pad", "NOTSET").startswith("SAME"):
        return [-(-data[i] // strides[i]) for i in range(rank)]
    round_ = ceil if node.number("ceil_mode", 0) else floor
    sizes = [
        (data[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) / strides[i] for i in range(rank)
    ]
    return [round_(size) + 1 for size in sizes]


def _many(node: Node, name: str, count: int, otherwise: int) -> list[int]:
    found = node.numbers.get(name)
    return [int(number) for number in found] if found and len(found) == count else [otherwise] * count


def _global_pool(_: Node, given: list[Known]) -> list[Known]:
    data = given[0].shape
    return [Known((*data[:2], *(1 for _ in data[2:])), given[0].data_type)]


def _flatten(node: Node, given: list[Known]) -> list[Known]:
    shape = given[0].shape
    axis = node.number("axis", 1) % (len(shape) + 1)
    return [Known((prod(shape[:axis]), prod(shape[axis:])), given[0].data_type)]


def _reshape(node: Node, given: list[Known]) -> list[Known] | None:
    wanted = given[1].values if len(given) > 1 else node.numbers.get("shape")
    if wanted is None:
        return None
    data = given[0].shape
    sizes = [data[i] if size == 0 and not node.number("allowzero", 0) else int(size) for i, size in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = prod(data) // max(1, -prod(sizes))
    if prod(sizes) != prod(data):
        # The batch was fixed by the exporter: the rest is the shape of a row.
        sizes[0] = prod(data) // max(1, prod(sizes[1:]))
    return [Known(tuple(sizes), given[0].data_type, given[0].values)]


def _transpose(node: Node, given: list[Known]) -> list[Known]:
    shape = given[0].shape
    order = _many(node, "perm", len(shape), -1)
    order = list(range(len(shape)))[::-1] if order[:1] == [-1] else order
    return [Known(tuple(shape[axis] for axis in order), given[0].data_type)]


def _concat(node: Node, given: list[Known]) -> list[Known]:
    axis = node.number("axis", 0) % len(given[0].shape)
    sizes = list(given[0].shape)
    sizes[axis] = sum(facts.shape[axis] for facts in given)
    values: tuple[float, ...] | None = ()
    for facts in given if sizes[axis] <= _SMALL else ():
        values = None if values is None or facts.values is None or len(facts.shape) > 1 else values + facts.values
    return [Known(tuple(sizes), given[0].data_type, values or None)]


def _split(node: Node, given: list[Known]) -> list[Known]:
    shape, count = given[0].shape, len(node.outputs)
    axis = node.number("axis", 0) % len(shape)
    parts = given[1].values if len(given) > 1 else node.numbers.get("split")
    sizes = [int(part) for part in parts] if parts else [-(-shape[axis] // count)] * count
    return [Known((*shape[:axis], size, *shape[axis + 1 :]), given[0].data_type) for size in sizes]


def _slice(node: Node, given: list[Known]) -> list[Known] | None:
    attributes = [node.numbers.get(name) for name in ("starts", "ends", "axes", "steps")]
    starts, ends, axes, steps = (
        given[i].values if i < len(given) and given[i].shape != () else attributes[i - 1] for i in range(1, 5)
    )
    if starts is None or ends is None:
        return None
    shape = list(given[0].shape)
    axes = axes or tuple(range(len(starts)))
    values = given[0].values
    for start, end, axis, step in zip(starts, ends, axes, steps or (1,) * len(starts), strict=True):
        taken = range(shape[int(axis)])[_bound(start) : _bound(end) : int(step)]
        values = tuple(values[i] for i in taken) if values is not None and len(shape) == 1 else None
        shape[int(axis)] = len(taken)
    return [Known(tuple(shape), given[0].data_type, values)]


def _bound(value: float) -> int:
    return max(-_LARGEST, min(_LARGEST, int(value)))


def _squeeze(node: Node, given: list[Known]) -> list[Known]:
    shape = given[0].shape
    axes = given[1].values if len(given) > 1 else node.numbers.get("axes")
    gone = {int(axis) % len(shape) for axis in axes} if axes else {i for i, size in enumerate(shape) if size == 1}
    left = tuple(size for i, size in enumerate(shape) if i not in gone)
    return [Known(left, given[0].data_type, given[0].values)]


def _unsqueeze(node: Node, given: list[Known]) -> list[Known] | None:
    axes = given[1].values if len(given) > 1 else node.numbers.get("axes")
    if axes is None:
        return None
    rank = len(given[0].shape) + len(axes)
    places = {int(axis) % rank for axis in axes}
    if len(places) != len(axes):
        return None
    rest = iter(given[0].shape)
    return [Known(tuple(1 if i in places else next(rest) for i in range(rank)), given[0].data_type, given[0].values)]


def _gather(node: Node, given: list[Known]) -> list[Known]:
    data, indices = given[0], given[1]
    axis = node.number("axis", 0) % len(data.shape)
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    values = None
    if data.values is not None and indices.values is not None and len(data.shape) == 1:
        values = tuple(data.values[int(index)] for index in indices.values)
    return [Known(shape, data.data_type, values)]


def _shape(node: Node, given: list[Known]) -> list[Known]:
    sizes = given[0].shape[node.number("start", 0) : node.number("end", len(given[0].shape))]
    return [Known((len(sizes),), "INT64", tuple(sizes))]


def _constant(node: Node, _: list[Known]) -> list[Known] | None:
    for stored in node.tensors.values():
        return [Known(stored.shape, stored.data_type, stored.values)]
    for name in ("value_int", "value_float"):
        if name in node.numbers:
            return [Known((), "INT64" if name == "value_int" else "FP32", node.numbers[name])]
    if "value_ints" in node.numbers:
        return [Known((len(node.numbers["value_ints"]),), "INT64", node.numbers["value_ints"])]
    return None


def _filled(node: Node, given: list[Known]) -> list[Known] | None:
    wanted = given[0].values if given else node.numbers.get("shape")
    kind = next((stored.data_type for stored in node.tensors.values()), "FP32")
    return None if wanted is None else [Known(tuple(int(size) for size in wanted), kind)]


def _expand(_: Node, given: list[Known]) -> list[Known] | None:
    wanted = given[1].values
    if wanted is None:
        return None
    return [Known(_together([given[0].shape, tuple(int(size) for size in wanted)]), given[0].data_type)]


def _tile(_: Node, given: list[Known]) -> list[Known] | None:
    times = given[1].values
    if times is None:
        return None
    sizes = tuple(size * int(count) for size, count in zip(given[0].shape, times, strict=True))
    return [Known(sizes, given[0].data_type)]


def _range(_: Node, given: list[Known]) -> list[Known] | None:
    start, limit, step = (facts.values for facts in given)
    if not (start and limit and step):
        return None
    return [Known((max(0, ceil((limit[0] - start[0]) / step[0])),), given[0].data_type)]


def _reduced(node: Node, given: list[Known]) -> list[Known]:
    shape = given[0].shape
    axes = given[1].values if len(given) > 1 else node.numbers.get("axes")
    if node.operator.startswith("Arg"):
        axes = (node.number("axis", 0),)
    gone = {int(axis) % len(shape) for axis in axes} if axes else set(range(len(shape)))
    keep = node.number("keepdims", 1)
    sizes = [1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone]
    return [Known(tuple(sizes), "INT64" if node.operator.startswith("Arg") else given[0].data_type)]


def _pad(node: Node, given: list[Known]) -> list[Known] | None:
    pads = given[1].values if len(given) > 1 else node.numbers.get("pads")
    shape = given[0].shape
    if pads is None or len(pads) != 2 * len(shape):
        return None
    sizes = tuple(size + int(pads[i]) + int(pads[len(shape) + i]) for i, size in enumerate(shape))
    return [Known(sizes, given[0].data_type)]


def _resize(node: Node, given: list[Known]) -> list[Known] | None:
    shape = given[0].shape
    if len(given) > 3 and given[3].values:
        return [Known(tuple(int(size) for size in given[3].values), given[0].data_type)]
    scales = next((facts.values for facts in given[1:3] if facts.values), node.numbers.get("scales"))
    if scales is None or len(scales) != len(shape):
        return None
    return [Known(tuple(int(size * scale) for size, scale in zip(shape, scales, strict=True)), given[0].data_type)]


def _recurrent(node: Node, given: list[Known]) -> list[Known]:
    steps, rows = given[0].shape[0], given[0].shape[1]
    ways, width = given[1].shape[0], given[2].shape[2]
    state = Known((ways, rows, width))
    return [Known((steps, ways, rows, width)), state, state][: max(1, len(node.outputs))]


def _classified(node: Node, given: list[Known]) -> list[Known]:
    rows = given[0].shape[0]
    labels = node.numbers.get("classlabels_int64s") or node.numbers.get("classlabels_ints") or (0, 0)
    return [Known((rows,), "INT64"), Known((rows, len(labels)))][: max(1, len(node.outputs))]


def _regressed(node: Node, given: list[Known]) -> list[Known]:
    return [Known((given[0].shape[0], node.number("targets", node.number("n_targets", 1))))]


_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": lambda a, b: a // b,
}  # fmt: skip
_COMPARISONS: Final = words("Equal Greater Less GreaterOrEqual LessOrEqual And Or Xor")
_SAME: Final = words(
    """Relu Sigmoid Tanh Dropout Softmax LogSoftmax Hardmax Erf Sqrt Exp Log Neg Abs Clip LeakyRelu Elu Selu
    Gelu HardSwish HardSigmoid Mish Swish Softplus Softsign BatchNormalization InstanceNormalization GroupNormalization
    LayerNormalization RMSNormalization SimplifiedLayerNormalization LpNormalization LRN Normalizer Scaler Imputer Floor
    Ceil Round Reciprocal Sin Cos Not CumSum Trilu Sign ThresholdedRelu Celu PRelu RotaryEmbedding Shrink Atan
    IsNaN"""
)
_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(words("Add Sub Mul Div Pow Max Min Sum Mean Mod Where"), _broadcast),
    **dict.fromkeys(_COMPARISONS, _broadcast),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("ConstantOfShape", "RandomNormal", "RandomUniform"), _filled),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(words("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2"), _reduced),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSumExp", "ArgMax", "ArgMin"), _reduced),
    **dict.fromkeys(("TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"), _classified),
    **dict.fromkeys(("TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor"), _regressed),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Identity": _identity, "Cast": _cast, "MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "FusedConv": _conv,
    "ConvTranspose": _conv_transposed, "Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose,
    "Concat": _concat,    "Split": _split, "Slice": _slice, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Gather": _gather, "Shape": _shape,
    "Constant": _constant, "Expand": _expand, "Tile": _tile, "Range": _range, "Pad": _pad,
}  # fmt: skip
_OPTIONAL: Final = {
    "LSTM": 3,
    "GRU": 3,
    "RNN": 3,
    "Resize": 1,
    "Clip": 1,
    "Dropout": 1,
    "Pad": 1,
    "Slice": 1,
    "Conv": 2,
}
"""How many inputs an operator's shape depends on, where not on all."""
