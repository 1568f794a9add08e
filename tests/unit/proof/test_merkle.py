"""The tree of RFC 6962, against the vectors of the certificate-transparency project and against the definition."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivefold.proof.merkle import (
    EMPTY_ROOT,
    CompactRange,
    RangeBuilder,
    consistency_proof,
    inclusion_proof,
    subtree_count,
    subtrees,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = tuple(
    map(
        bytes.fromhex,
        ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
)
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Roots of the trees over the first 1 to 8 of LEAVES, as certificate-transparency's tests have them."""

_counts = st.integers(1, 70)


def _leaves(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % n).digest() for n in range(count)]


def _defined_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 writes it down."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = max(1 << bit for bit in range(8) if 1 << bit < len(leaves))
    return hashlib.sha256(b"\1" + _defined_root(leaves[:split]) + _defined_root(leaves[split:])).digest()


@given(st.integers(0, 300), st.integers(0, 300))
def test_subtrees_are_counted_without_listing_them(begin: int, count: int) -> None:
    """The count is that of the list."""
    assert subtree_count(begin, begin + count) == len(list(subtrees(begin, begin + count)))


@given(st.integers(0, 40), st.lists(st.integers(0, 40), max_size=6))
def test_leaves_at_once_are_leaves_one_by_one(begin: int, counts: list[int]) -> None:
    """However leaves come, in pages or singly, and wherever the range begins: it is the same range."""
    singly, at_once = (RangeBuilder(CompactRange(begin, begin)) for _ in range(2))
    for count in counts:
        at_once.extend(_leaves(count))
        for leaf in _leaves(count):
            singly.add(leaf)

        assert at_once.range() == singly.range()


def test_roots_are_those_of_the_published_vectors() -> None:
    """Another implementation's trees have our roots."""
    assert [tree_root(LEAVES[: n + 1]).hex() for n in range(8)] == list(ROOTS)
    assert hashlib.sha256().digest() == EMPTY_ROOT == CompactRange().root()


def test_proofs_are_those_of_the_published_vectors() -> None:
    """The paths that certificate-transparency's tests list come out."""
    assert [node.hex() for node in inclusion_proof(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [node.hex() for node in consistency_proof(LEAVES, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(_counts)
def test_a_frontier_has_the_root_that_the_definition_gives(count: int) -> None:
    """Extending leaf by leaf and the recursive definition agree."""
    leaves = _leaves(count)
    assert CompactRange().extended(leaves).root() == _defined_root(leaves)


@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 70))
def test_joining_ranges_is_the_same_as_extending_one(first: int, second: int, third: int) -> None:
    """Neighbouring ranges, made apart, join to the range that would have been made at once."""
    begin, middle, end = sorted((first, second, third))
    leaves = _leaves(end)
    left = CompactRange(begin, begin).extended(leaves[begin:middle])
    right = CompactRange(middle, middle).extended(leaves[middle:end])
    assert left.joined(right) == CompactRange(begin, begin).extended(leaves[begin:end])
    assert len(right.hashes) <= 2 * 7


@given(st.integers(0, 300), st.integers(0, 300))
def test_subtrees_cover_the_range_once(first: int, second: int) -> None:
    """Perfect, aligned, without gap or overlap."""
    begin, end = sorted((first, second))
    position = begin
    for start, level in subtrees(begin, end):
        assert start == position
        assert start % (1 << level) == 0
        position += 1 << level
    assert position == end


@given(_counts, st.data())
def test_an_inclusion_proof_holds_for_its_leaf_alone(count: int, data: st.DataObject) -> None:
    """The right leaf at the right place is accepted; another leaf, place or path is not."""
    index = data.draw(st.integers(0, count - 1))
    leaves = _leaves(count)
    root, proof = tree_root(leaves), inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, count, proof, root)
    assert not verify_inclusion(b"other", index, count, proof, root)
    assert not verify_inclusion(leaves[index], index, count, [*proof, root], root)
    assert not verify_inclusion(leaves[index], count, count, proof, root)
    if count > 1:
        assert not verify_inclusion(leaves[index], (index + 1) % count, count, proof, root)
        assert not verify_inclusion(leaves[index], index, count, proof[1:], root)


@given(_counts, st.data())
def test_a_consistency_proof_holds_for_an_extension_alone(count: int, data: st.DataObject) -> None:
    """Two trees of one log are consistent; a tree with another past is not, whatever the proof."""
    first = data.draw(st.integers(1, count))
    leaves = _leaves(count)
    old, new, proof = tree_root(leaves[:first]), tree_root(leaves), consistency_proof(leaves, first)
    assert verify_consistency(first, count, proof, old, new)
    forked = tree_root([b"other", *leaves[1:first]])
    assert not verify_consistency(first, count, proof, forked, new)
    assert not verify_consistency(first, count, [*proof, old], old, new)
    assert not verify_consistency(count + 1, count, proof, old, new)


def test_a_range_with_too_few_hashes_is_refused() -> None:
    """What comes from outside is checked before it is used."""
    with pytest.raises(ValueError, match="not covered"):
        CompactRange(0, 3, (bytes(32),))
    with pytest.raises(ValueError, match="no range"):
        CompactRange(4, 3)
    with pytest.raises(ValueError, match="no range"):
        CompactRange(0, 1, (b"short",))
    with pytest.raises(ValueError, match="does not go on"):
        CompactRange().joined(CompactRange(1, 1))
    with pytest.raises(ValueError, match="from 0"):
        CompactRange(1, 1).root()
