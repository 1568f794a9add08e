"""GGUF: metadata, then tensor descriptions, then the tensors.

Format: ggml's docs/gguf.md; block sizes: ggml's `type_traits`.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Final

from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.facts import TaskFamily
from hivefold.models.passport.huggingface import check_template
from hivefold.models.passport.limits import GGUF_DEPTH, GGUF_TEXT_BYTES
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
_BLOCKS: Final = {
    0: ("FP32", 1, 4), 1: ("FP16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("INT8", 1, 1), 25: ("INT16", 1, 2), 26: ("INT32", 1, 4), 27: ("INT64", 1, 8), 28: ("FP64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Element type, elements of a block, bytes of a block."""
_AUDIO: Final = frozenset({"whisper", "wavtokenizer-dec"})
_STATE_SPACE: Final = frozenset({"mamba", "mamba2", "rwkv6", "rwkv7"})


class _Reader:
    """Reads values one after the other."""

    def __init__(self, source: Source, draft: Draft) -> None:
        self.position = 4
        self._source = source
        self._draft = draft

    def number(self, form: str) -> int:
        """A little-endian number."""
        return int(self._scalar(form))

    def text(self) -> str:
        """A text. Longer ones than the bound are cut."""
        size = self.number("Q")
        data = self._source.at(self.position, min(size, GGUF_TEXT_BYTES)) if size <= self._source.size else b""
        self._source.part("a text", self.position, size)
        self.position += size
        return data.decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> int | float | str | list[object]:
        """A value of metadata; of arrays the first few items."""
        self._draft.budget.spend()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth > GGUF_DEPTH:
            raise MalformedError(f"the metadata holds a value of the unknown type {kind}")
        return self._array(depth)

    def _array(self, depth: int) -> list[object]:
        kind, count = self.number("I"), self.number("Q")
        kept: list[object] = []
        if kind in _SCALARS:
            self._source.part("an array", self.position, count * struct.calcsize(_SCALARS[kind]))
            kept = [self._scalar(_SCALARS[kind]) for _ in range(min(count, 4096))]
            self.position += (count - len(kept)) * struct.calcsize(_SCALARS[kind])
            return kept
        for _ in range(count):
            item = self.value(kind, depth + 1)
            if len(kept) < 16:
                kept.append(item)
        return kept

    def _scalar(self, form: str) -> int | float:
        size = struct.calcsize(form)
        (value,) = struct.unpack(f"<{form}", self._source.at(self.position, size))
        self.position += size
        found: int | float = value
        return found


def inspect(source: Source, draft: Draft) -> None:
    """Reads metadata and tensor descriptions. Raises MalformedError."""
    draft.format, draft.framework = "gguf", "llama.cpp"
    reader = _Reader(source, draft)
    version = reader.number("I")
    draft.format_version = f"GGUF {version}"
    if version not in {2, 3}:
        raise MalformedError(f"it has version {version}; 2 and 3 are read")
    tensors, keys = reader.number("Q"), reader.number("Q")
    metadata: dict[str, object] = {}
    for _ in range(keys):
        name = reader.text()
        if name in metadata:
            draft.suspicious("duplicate-key", name, "is in the metadata twice: loaders may differ in which they take")
        metadata[name] = reader.value(reader.number("I"))
    ends = [_tensor(reader, draft) for _ in range(tensors)]
    _describe(metadata, draft)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise MalformedError("its alignment is absurd")
    start = -(-reader.position // alignment) * alignment
    if ends and start + max(ends) > source.size:
        raise MalformedError(f"its tensors end at byte {start + max(ends)}, the file at {source.size}")


def _tensor(reader: _Reader, draft: Draft) -> int:
    draft.budget.spend()
    name = reader.text()
    rank = reader.number("I")
    if rank > 8:
        raise MalformedError(f"the tensor {name!r} has {rank} dimensions")
    shape = tuple(reversed([reader.number("Q") for _ in range(rank)]))
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in _BLOCKS:
        raise MalformedError(f"the tensor {name!r} has the unknown type {kind}")
    data_type, elements, size = _BLOCKS[kind]
    if prod(shape) > 1 << 56 or prod(shape) % elements:
        raise MalformedError(f"the tensor {name!r} has an absurd shape")
    total = prod(shape) // elements * size
    draft.weights.append(Weight(name, data_type, shape, total, "gguf", offset))
    return offset + total


def _describe(metadata: dict[str, object], draft: Draft) -> None:
    kind = metadata.get("general.architecture")
    name = kind if isinstance(kind, str) else ""
    draft.architecture_name = name
    draft.task = TaskFamily.AUDIO if name in _AUDIO else TaskFamily.VISION if name == "clip" else TaskFamily.NLP

    def number(key: str) -> int:
        value = metadata.get(f"{name}.{key}")
        value = max((item for item in value if isinstance(item, int)), default=0) if isinstance(value, list) else value
        return value if isinstance(value, int) and 0 < value < 1 << 40 else 0

    experts = number("expert_count")
    draft.architecture = "mixture of experts" if experts else "state space" if name in _STATE_SPACE else "transformer"
    draft.context_tokens = number("context_length")
    heads, layers, width = number("attention.head_count"), number("block_count"), number("embedding_length")
    if heads and layers and width:
        keys = number("attention.key_length") or width // heads
        values = number("attention.value_length") or width // heads
        draft.kv_cache_token_bytes = 2 * layers * (number("attention.head_count_kv") or heads) * (keys + values)
    for key, text in metadata.items():
        if key.startswith("tokenizer.chat_template"):
            check_template(text, key, draft)
