"""Reads the structure of an HDF5 file: groups, attributes that are texts, element types and shapes of data sets.

Nothing of the data is read. Format: "HDF5 File Format Specification Version 3.0", sections II to IV. Whatever
points into another file is evidence; what this reader does not know (dense groups) is left out and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Final

from hivefold.models.passport.draft import Draft, joined
from hivefold.models.passport.limits import HDF5_CHUNKS, HDF5_DEPTH, JSON_BYTES
from hivefold.models.passport.source import Source
from hivefold.models.wire import MalformedError

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_NOWHERE: Final = 0xFFFF_FFFF_FFFF_FFFF
_LINK_INFO: Final = 0x02
_CONTINUED: Final = 0x10
_VIRTUAL: Final = 3
_NAME_BYTES: Final = 4096
_RANK: Final = 32


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """A data set: its path, element type as "FP32" ("" for others), shape and bytes."""

    path: str
    data_type: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(slots=True)
class Tree:
    """What a file holds: data sets, and the texts among its own attributes by name."""

    datasets: list[DatasetFacts] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    start: int
    size: int


def looks(source: Source) -> bool:
    """Whether the file begins as HDF5 does, at once or behind a user block."""
    return _beginning(source) >= 0


def read(source: Source, draft: Draft, texts: frozenset[str] = frozenset()) -> Tree:
    """The structure, with those of the file's attributes that are named in `texts`. Raises MalformedError."""
    return _Reader(source, draft, texts).read()


def _beginning(source: Source) -> int:
    for offset in (0, 512, 1024, 2048):
        if source.size >= offset + 48 and source.at(offset, 8) == _SIGNATURE:
            return offset
    return -1


class _Reader:
    def __init__(self, source: Source, draft: Draft, texts: frozenset[str]) -> None:
        start = max(0, _beginning(source))
        self._source = source.part(source.name, start, source.size - start)
        self._draft = draft
        self._texts = texts
        self._tree = Tree()
        self._seen: set[int] = set()

    def read(self) -> Tree:
        version = self._source.integer(8, 1)
        widths = self._source.at(13, 2) if version < 2 else self._source.at(9, 2)
        if widths != b"\x08\x08" or version > 3:
            raise MalformedError(f"an HDF5 file of version {version} with addresses of {widths[0]} bytes is not read")
        if version < 2:
            root = self._source.integer((24 if version == 0 else 28) + 4 * 8 + 8, 8)
        else:
            root = self._source.integer(36, 8)
        self._object(root, "", 0)
        return self._tree

    def _object(self, address: int, path: str, depth: int) -> None:
        if depth > HDF5_DEPTH:
            raise MalformedError(f"its groups are nested deeper than {HDF5_DEPTH}")
        if address in self._seen:
            return
        self._seen.add(address)
        shape: tuple[int, ...] | None = None
        kind: tuple[str, int] | None = None
        layout = False
        for message in self._messages(address):
            self._draft.budget.spend()
            match message.kind:
                case 0x01:
                    shape = self._shape(message.start)
                case 0x03:
                    kind = self._type(message.start)
                case 0x08:
                    layout = True
                    self._layout(message.start, path)
                case 0x07:
                    self._draft.unsafe("hdf5-external", path or "/", "keeps its data in another file")
                case 0x0C if not path and self._texts:
                    self._attribute(message)
                case 0x11:
                    self._table(message.start, path, depth)
                case 0x06:
                    self._link(message.start, path, depth)
                case 0x02 | 0x15:
                    self._dense(message, path)
                case _:
                    pass
        if layout and shape is not None and kind is not None:
            self._tree.datasets.append(DatasetFacts(path, kind[0], shape, prod(shape) * kind[1]))

    def _messages(self, address: int) -> Iterator[_Message]:
        """The messages of an object's header, with those in its continuations."""
        if self._source.at(address, 4) == b"OHDR":
            yield from self._messages2(address)
            return
        if self._source.integer(address, 1) != 1:
            raise MalformedError(f"there is no object at byte {address}")
        blocks = [(address + 16, self._source.integer(address + 8, 4))]
        for count, (start, size) in enumerate(_growing(blocks)):
            if count > HDF5_CHUNKS:
                raise MalformedError("an object's header is scattered without end")
            position = start
            while position + 8 <= start + size:
                kind, length = self._source.integer(position, 2), self._source.integer(position + 2, 2)
                self._draft.budget.spend()
                if kind == _CONTINUED:
                    blocks.append((self._source.integer(position + 8, 8), self._source.integer(position + 16, 8)))
                else:
                    yield _Message(kind, position + 8, length)
                position += 8 + length

    def _messages2(self, address: int) -> Iterator[_Message]:
        flags = self._source.integer(address + 5, 1)
        position = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(position + width, self._source.integer(position, width))]
        head = 6 if flags & 4 else 4
        for count, (start, size) in enumerate(_growing(blocks)):
            if count > HDF5_CHUNKS:
                raise MalformedError("an object's header is scattered without end")
            position = start
            while position + head <= start + size:
                kind, length = self._source.integer(position, 1), self._source.integer(position + 1, 2)
                self._draft.budget.spend()
                if kind == _CONTINUED:
                    place, whole = (
                        self._source.integer(position + head, 8),
                        self._source.integer(position + head + 8, 8),
                    )
                    blocks.append((place + 4, whole - 8))
                else:
                    yield _Message(kind, position + head, length)
                position += head + length

    def _shape(self, start: int) -> tuple[int, ...]:
        version, rank = self._source.integer(start, 1), self._source.integer(start + 1, 1)
        if rank > _RANK:
            raise MalformedError(f"a data set has {rank} dimensions")
        first = start + (8 if version == 1 else 4)
        return tuple(self._source.integer(first + 8 * index, 8) for index in range(rank))

    def _type(self, start: int) -> tuple[str, int]:
        """Element type and its bytes; "vlen" for texts of any length, "text" for those of a fixed one."""
        kind, size = self._source.integer(start, 1) & 15, self._source.integer(start + 4, 4)
        if kind == 0:
            signed = self._source.integer(start + 1, 1) & 8
            return f"{'INT' if signed else 'UINT'}{8 * size}", size
        if kind == 1:
            exponent = self._source.integer(start + 13, 1) if size == 2 else 0
            return ("BF16" if exponent == 8 else f"FP{8 * size}"), size
        if kind == 8:
            return "BOOL", size
        return {3: "text", 9: "vlen"}.get(kind, ""), size

    def _layout(self, start: int, path: str) -> None:
        version = self._source.integer(start, 1)
        if version >= 4 and self._source.integer(start + 1, 1) == _VIRTUAL:
            self._draft.unsafe("hdf5-external", path or "/", "takes its data from other files (a virtual data set)")

    def _attribute(self, message: _Message) -> None:
        start, version = message.start, self._source.integer(message.start, 1)
        names, types, spaces = (self._source.integer(start + offset, 2) for offset in (2, 4, 6))
        position = start + (9 if version == 3 else 8)
        padded = _padded if version == 1 else _unpadded
        name = self._source.at(position, names).split(b"\0")[0].decode("utf-8", "replace")
        kind, size = self._type(position + padded(names))
        space = position + padded(names) + padded(types)
        elements = prod(self._shape(space))
        data = space + padded(spaces)
        if kind not in {"text", "vlen"} or elements > 1 or name not in self._texts:
            return
        if kind == "text":
            text = self._source.at(data, min(size, JSON_BYTES))
        else:
            text = self._heap(self._source.integer(data + 4, 8), self._source.integer(data + 12, 4))
        self._draft.budget.unpack(len(text))
        self._tree.texts[name] = text.rstrip(b"\0").decode("utf-8", "replace")

    def _heap(self, address: int, wanted: int) -> bytes:
        """An object of a global heap."""
        if self._source.at(address, 4) != b"GCOL":
            raise MalformedError("a text is not where it should be")
        end = address + self._source.integer(address + 8, 8)
        position = address + 16
        while position + 16 <= end:
            self._draft.budget.spend()
            index, size = self._source.integer(position, 2), self._source.integer(position + 8, 8)
            if index == wanted:
                return self._source.at(position + 16, min(size, JSON_BYTES))
            if index == 0:
                break
            position += 16 + _padded(size)
        raise MalformedError("a text is not where it should be")

    def _table(self, start: int, path: str, depth: int) -> None:
        """A group of the older form: a B-tree of names in a local heap."""
        tree, heap = self._source.integer(start, 8), self._source.integer(start + 8, 8)
        if self._source.at(heap, 4) != b"HEAP":
            raise MalformedError("a group has no names")
        names = self._source.integer(heap + 24, 8)
        self._branch(tree, names, path, depth, 0)

    def _branch(self, address: int, names: int, path: str, depth: int, level: int) -> None:
        self._draft.budget.spend()
        mark = self._source.at(address, 4)
        if mark == b"SNOD":
            for index in range(self._source.integer(address + 6, 2)):
                self._symbol(address + 8 + 40 * index, names, path, depth)
            return
        if mark != b"TREE" or level > HDF5_DEPTH or address in self._seen:
            raise MalformedError("a group's tree is damaged")
        self._seen.add(address)
        for index in range(self._source.integer(address + 6, 2)):
            self._branch(self._source.integer(address + 32 + 16 * index, 8), names, path, depth, level + 1)

    def _symbol(self, entry: int, names: int, path: str, depth: int) -> None:
        self._draft.budget.spend()
        name = self._name(names + self._source.integer(entry, 8))
        below = joined(path, name, "/")
        if self._source.integer(entry + 16, 4) == 2:
            self._draft.note(f"{below} is a link inside the file")
            return
        self._object(self._source.integer(entry + 8, 8), below, depth + 1)

    def _name(self, start: int) -> str:
        end = self._source.find(b"\0", start, start + _NAME_BYTES)
        if end < 0:
            raise MalformedError("a name has no end")
        return self._source.at(start, end - start).decode("utf-8", "replace")

    def _link(self, start: int, path: str, depth: int) -> None:
        """A link of the newer form: hard, soft, or into another file."""
        flags = self._source.integer(start + 1, 1)
        position = start + 2
        kind = self._source.integer(position, 1) if flags & 8 else 0
        position += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        size = self._source.integer(position, width)
        if size > _NAME_BYTES:
            raise MalformedError(f"a name of {size} bytes is longer than the {_NAME_BYTES} allowed")
        below = joined(path, self._source.at(position + width, size).decode("utf-8", "replace"), "/")
        if kind == 0:
            self._object(self._source.integer(position + width + size, 8), below, depth + 1)
        elif kind == 1:
            self._draft.note(f"{below} is a link inside the file")
        else:
            self._draft.unsafe("hdf5-external", below, "is a link into another file")

    def _dense(self, message: _Message, path: str) -> None:
        """Many links or attributes: kept in a heap that is not read."""
        flags = self._source.integer(message.start + 1, 1)
        extra = (8 if flags & 1 else 0) if message.kind == _LINK_INFO else (2 if flags & 1 else 0)
        if self._source.integer(message.start + 2 + extra, 8) != _NOWHERE:
            self._draft.uncovered(f"{path or '/'}: links or attributes in dense storage are not read")


def _growing(blocks: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The blocks, with those that are added on the way."""
    index = 0
    while index < len(blocks):
        yield blocks[index]
        index += 1


def _padded(size: int) -> int:
    return (size + 7) // 8 * 8


def _unpadded(size: int) -> int:
    return size
