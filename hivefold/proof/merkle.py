"""Merkle trees in the shape of RFC 6962, section 2.1, and what proves that one extends another. Pure.

    leaf hash = SHA-256(00 | leaf)        node hash = SHA-256(01 | left | right)

The leaves of the log's tree are the hashes of its records in order (docs/log-format.md). A compact range holds the
roots of the fewest perfect subtrees that cover some leaves: O(log n) hashes that can be extended, and joined to
the range that goes on where they end. The range from 0 has the root of the tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its children."""
    return hashlib.sha256(b"\1" + left + right).digest()


def subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The fewest perfect subtrees that cover the leaves [begin, end): first leaf and level of each, in order."""
    while begin < end:
        level = (begin & -begin).bit_length() - 1 if begin else end.bit_length()
        while begin + (1 << level) > end:
            level -= 1
        yield begin, level
        begin += 1 << level


def subtree_count(begin: int, end: int) -> int:
    """How many those are: as many as steps down from where the paths to the leaves on either side of them part."""
    if begin == end or not begin:
        return (end - begin).bit_count()
    below = (1 << ((begin - 1) ^ end).bit_length() - 1) - 1
    return (~(begin - 1) & below).bit_count() + (end & below).bit_count()


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The leaves [begin, end) by the roots of the subtrees that cover them. Raises ValueError for another count."""

    begin: int = 0
    end: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end or not {HASH_BYTES}.issuperset(map(len, self.hashes)):
            raise ValueError(f"[{self.begin}, {self.end}) is no range of leaves with hashes of {HASH_BYTES} bytes")
        if len(self.hashes) != subtree_count(self.begin, self.end):
            raise ValueError(f"[{self.begin}, {self.end}) is not covered by {len(self.hashes)} subtrees")

    def extended(self, leaves: Iterable[bytes]) -> CompactRange:
        """The range with more leaves at its end."""
        builder = RangeBuilder(self)
        builder.extend(leaves)
        return builder.range()

    def joined(self, after: CompactRange) -> CompactRange:
        """The range over both. Raises ValueError unless `after` begins where this one ends."""
        if after.begin != self.end:
            raise ValueError(f"a range from {after.begin} does not go on from {self.end}")
        builder = RangeBuilder(self)
        for (_, level), node in zip(subtrees(after.begin, after.end), after.hashes, strict=True):
            builder.push(node, level)
        return builder.range()

    def root(self) -> bytes:
        """The root of the tree with `end` leaves. The range MUST begin at 0."""
        if self.begin:
            raise ValueError("only a range from 0 has a root")
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


EMPTY: Final = CompactRange()
"""The range over nothing, from 0."""


class RangeBuilder:
    """A compact range in the making: a leaf costs two hashes on average. Many at once cost a third less than singly."""

    __slots__ = ("_begin", "_end", "_hashes")

    def __init__(self, start: CompactRange) -> None:
        self._begin = start.begin
        self._end = start.end
        self._hashes = list(start.hashes)

    @property
    def end(self) -> int:
        """How far the range goes."""
        return self._end

    def add(self, leaf: bytes) -> None:
        """Adds a leaf at the end."""
        self.push(hashlib.sha256(b"\0" + leaf).digest(), 0)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Adds leaves at the end, level by level."""
        sha256, hashes, tail = hashlib.sha256, self._hashes, list[bytes]()
        nodes = [sha256(b"\0" + leaf).digest() for leaf in leaves]
        start, level = self._end, 0
        self._end += len(nodes)
        while nodes:
            if start >> level & 1:
                if start - (1 << level) >= self._begin:
                    start -= 1 << level
                    nodes.insert(0, hashes.pop())
                else:  # what it would be paired with is before the range
                    start += 1 << level
                    hashes.append(nodes.pop(0))
            if len(nodes) & 1:
                tail.append(nodes.pop())
            in_turn = iter(nodes)
            nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(in_turn, in_turn, strict=True)]
            level += 1
        hashes.extend(reversed(tail))

    def push(self, node: bytes, level: int) -> None:
        """Adds the perfect subtree of 2^level leaves with this root at the end."""
        start, hashes = self._end, self._hashes
        self._end += 1 << level
        while start >> level & 1 and start - (1 << level) >= self._begin:
            node = hashlib.sha256(b"\1" + hashes.pop() + node).digest()
            start -= 1 << level
            level += 1
        hashes.append(node)

    def range(self) -> CompactRange:
        """The range so far."""
        return CompactRange(self._begin, self._end, tuple(self._hashes))


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of all leaves (RFC 6962, 2.1)."""
    return CompactRange().extended(leaves).root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` (RFC 6962, 2.1.1). Linear in the number of leaves."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"there is no leaf {index} among {len(leaves)}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), tree_root(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), tree_root(leaves[:split])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` is leaf `index` of the tree of `size` leaves (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf_hash(leaf)
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """What proves that the tree over `leaves` extends that over the first of them (RFC 6962, 2.1.2). Linear."""
    if not 0 < first <= len(leaves):
        raise ValueError(f"there is no tree of {first} leaves within {len(leaves)}")
    return _subproof(leaves, first, whole=True)


def verify_consistency(first: int, second: int, proof: Sequence[bytes], root: bytes, extended: bytes) -> bool:
    """Whether `proof` shows that the tree of `second` leaves extends that of `first` (RFC 9162, 2.1.4.2)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and root == extended
    path = [root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and (old, new) == (root, extended)


def _subproof(leaves: Sequence[bytes], first: int, *, whole: bool) -> list[bytes]:
    if first == len(leaves):
        return [] if whole else [tree_root(leaves)]
    split = _split(len(leaves))
    if first <= split:
        return [*_subproof(leaves[:split], first, whole=whole), tree_root(leaves[split:])]
    return [*_subproof(leaves[split:], first - split, whole=False), tree_root(leaves[:split])]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1
