"""variables.index of a SavedModel: which variables its checkpoint holds.

Format: LevelDB's table (doc/table_format.md) without compression; values are TensorFlow's BundleEntryProto.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from hivefold.limits import MODEL_NAME_BYTES
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.limits import PASSPORT_PARTS, SSTABLE_BLOCK_BYTES
from hivefold.models.passport.protobuf import described
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError, Span, Wire

_MAGIC: Final = 0xDB4775248B80FB57
_FOOTER: Final = 48
_LEFT_OUT: Final = re.compile(r"OPTIMIZER_SLOT|(^|/)_?optimizer|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH|"
                              r"keras_api/metrics|(^|/)(iter|step|learning_rate|beta_[12]|decay)/")  # fmt: skip
_BUFFERS: Final = re.compile(r"moving_(mean|variance)|non_trainable|seed_generator")


def inspect(source: Source, draft: Draft) -> None:
    """Adds the variables. Raises MalformedError."""
    footer = source.at(source.size - _FOOTER, _FOOTER)
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise MalformedError("it is no table of variables")
    _, _, position = _handle(footer, 0)
    offset, size, _ = _handle(footer, position)
    for _, handle in _entries(_block(source, offset, size, draft), draft):
        place, length, _ = _handle(handle, 0)
        for key, value in _entries(_block(source, place, length, draft), draft):
            if key:
                _variable(key.decode("utf-8", "replace"), value, draft)


def _variable(name: str, value: bytes, draft: Draft) -> None:
    if _LEFT_OUT.search(name):
        return
    data_type, shape, size = described(Wire(value, PASSPORT_PARTS), Span(0, len(value)))
    if shape is None:
        raise MalformedError(f"the variable {name!r} has no size")
    trained = not _BUFFERS.search(name)
    name = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    draft.weights.append(Weight(name, data_type, shape, size, trained=trained))


def _block(source: Source, offset: int, size: int, draft: Draft) -> bytes:
    if size > SSTABLE_BLOCK_BYTES:
        raise MalformedError(f"a block has {size} bytes")
    draft.budget.unpack(size)
    if source.at(offset + size, 1) != b"\x00":
        raise MalformedError("its blocks are compressed, which is not read")
    return source.at(offset, size)


def _entries(block: bytes, draft: Draft) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; keys share their beginning with the one before."""
    if len(block) < 4:
        raise MalformedError("a block is too short")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    position, key = 0, b""
    while position < end:
        draft.budget.spend()
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        size, position = _varint(block, position)
        if shared > len(key) or shared + own > MODEL_NAME_BYTES or position + own + size > end:
            raise MalformedError("an entry does not fit its block")
        key = key[:shared] + block[position : position + own]
        yield key, block[position + own : position + own + size]
        position += own + size


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedError("it ends inside a number")
