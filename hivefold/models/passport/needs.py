"""What running a model takes, from what its file says. Estimates, with their formulas; nodes measure the truth.

memory = weights x 1.2 (the runtime's copies) + activations + cache of one full context + 64 MiB for the runtime;
GPU memory = the same with 512 MiB for the driver's context. cores: 1, 2, 4, 8 by complexity.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.facts import Complexity, Needs, Precision

_RUNTIME_BYTES: Final = 64 << 20
_DEVICE_BYTES: Final = 512 << 20
_LARGEST: Final = (1 << 63) - 1
_KINDS: Final = 64
_CORES: Final = {
    Complexity.UNSPECIFIED: 1,
    Complexity.SMALL: 1,
    Complexity.MEDIUM: 2,
    Complexity.LARGE: 4,
    Complexity.XLARGE: 8,
}
_NEVER_TRAINED: Final = frozenset({"INT64", "BOOL", "UINT64", "BYTES"})
"""Element types of indices, masks and counters."""


def bounded(number: int) -> int:
    """What a passport can hold: a file may claim more than 64 bits."""
    return min(number, _LARGEST)


def complexity(parameters: int | None) -> Complexity:
    """SMALL < 1e6 <= MEDIUM < 1e8 <= LARGE < 1e9 <= XLARGE."""
    if parameters is None:
        return Complexity.UNSPECIFIED
    if parameters < 1_000_000:
        return Complexity.SMALL
    if parameters < 100_000_000:
        return Complexity.MEDIUM
    return Complexity.LARGE if parameters < 1_000_000_000 else Complexity.XLARGE


def unique(weights: list[Weight]) -> list[Weight]:
    """The weights without those that are the same bytes under another name."""
    seen: set[tuple[str, int, int]] = set()
    kept = []
    for weight in weights:
        key = (weight.storage, weight.offset, weight.elements)
        if not weight.storage or key not in seen:
            seen.add(key)
            kept.append(weight)
    return kept


def parameters_of(draft: Draft) -> int | None:
    """How many parameters there are; None where the file does not tell."""
    if draft.parameter_count is not None:
        return draft.parameter_count
    trained = [weight for weight in unique(draft.weights) if _trained(weight)]
    return bounded(sum(weight.elements for weight in trained)) if draft.weights else None


def precisions_of(draft: Draft) -> tuple[Precision, ...]:
    """Parameters by element type, the most bytes first."""
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for weight in unique(draft.weights):
        if _trained(weight):
            counts[weight.data_type] += weight.elements
            sizes[weight.data_type] += weight.size_bytes
    kinds = sorted(counts, key=lambda kind: (-sizes[kind], kind))
    return tuple(Precision(kind, bounded(counts[kind]), bounded(sizes[kind])) for kind in kinds[:_KINDS])


def needs_of(draft: Draft, parameters: int | None, batch_rows: int) -> Needs:
    """The estimate for one copy of the model and `batch_rows` rows at once."""
    weights = sum(weight.size_bytes for weight in unique(draft.weights)) if draft.weights else None
    size = complexity(parameters)
    cache = (draft.kv_cache_token_bytes or 0) * draft.context_tokens
    used = None if weights is None else weights * 6 // 5 + (draft.activation_bytes or 0) + cache
    return Needs(
        weight_bytes=None if weights is None else bounded(weights),
        activation_bytes=None if draft.activation_bytes is None else bounded(draft.activation_bytes),
        batch_rows=batch_rows,
        kv_cache_token_bytes=None if draft.kv_cache_token_bytes is None else bounded(draft.kv_cache_token_bytes),
        context_tokens=draft.context_tokens,
        complexity=size,
        cores=_CORES[size],
        memory_bytes=None if used is None else bounded(used + _RUNTIME_BYTES),
        gpu_memory_bytes=None if used is None else bounded(used + _DEVICE_BYTES),
    )


def _trained(weight: Weight) -> bool:
    return weight.trained and weight.data_type not in _NEVER_TRAINED
