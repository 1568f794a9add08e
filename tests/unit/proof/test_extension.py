"""A log that only grew is believed; one that was cut, forked or signed by a stranger is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivefold.errors import ProofError
from hivefold.proof.extension import GapError, Proven, first_seen
from tests.fixtures.signed import SignedLog


def _seen(log: SignedLog, records: int) -> Proven:
    log.grow(records)
    return first_seen(log.checkpoint())


@given(st.integers(0, 40), st.lists(st.integers(0, 40), max_size=5))
def test_every_extension_is_believed(first: int, steps: list[int]) -> None:
    """From the first checkpoint on, each that grew by any number of records, and a repeat too."""
    log = SignedLog()
    proven = _seen(log, first)
    for step in steps:
        log.grow(step)
        log.term += 1
        proven = proven.extended(log.checkpoint())
    assert (proven.checkpoint.size, proven.checkpoint.term) == (len(log.leaves), log.term)
    assert proven.tree.end == len(log.leaves)


@given(st.integers(2, 40), st.integers(1, 40), st.data())
def test_a_rewritten_past_is_not_believed(first: int, more: int, data: st.DataObject) -> None:
    """Any one record that was seen and is another now shows, whatever was appended."""
    log = SignedLog()
    proven = _seen(log, first)
    forked = SignedLog()
    forked.grow(first)
    forked.checkpoint()
    at = data.draw(st.integers(1, first))
    forked.leaves[at] = b"\x55" * 32
    forked.grow(more)
    with pytest.raises(ProofError, match="rewritten"):
        proven.extended(forked.checkpoint())


def test_a_shorter_log_is_not_believed() -> None:
    """The error says how much there was."""
    log = SignedLog()
    old = log.checkpoint()
    proven = _seen(log, 4)
    with pytest.raises(ProofError, match=r"cut: it has 1 records in term 1, and had 5 in term 1"):
        proven.extended(old)


def test_another_log_is_not_believed() -> None:
    """Even when the same key signs it."""
    proven = _seen(SignedLog(), 4)
    other = SignedLog("other")
    other.grow(10)
    with pytest.raises(ProofError, match="another log"):
        proven.extended(other.checkpoint())


def test_a_head_of_the_same_size_must_be_the_same() -> None:
    """Two logs of one size that differ in the last record are a fork."""
    log, forked = SignedLog(), SignedLog()
    proven = _seen(log, 4)
    forked.grow(4)
    forked.leaves[-1] = b"\x55" * 32
    with pytest.raises(ProofError, match="rewritten"):
        proven.extended(forked.checkpoint())


def test_missed_checkpoints_are_asked_for() -> None:
    """A checkpoint that goes on from one that was not seen proves nothing yet; with those between it does."""
    log = SignedLog()
    proven = _seen(log, 4)
    log.grow(3)
    missed = log.checkpoint()
    log.grow(2)
    latest = log.checkpoint()
    with pytest.raises(GapError):
        proven.extended(latest)
    assert proven.extended(missed).extended(latest).checkpoint.size == 10


def test_an_endorsed_key_is_believed_and_a_strangers_is_not() -> None:
    """Rotations are followed, several at once; a key that nobody vouched for is refused."""
    log = SignedLog()
    proven = _seen(log, 2)
    for seed in (2, 3):
        log.rotate(seed)
    log.grow(1)
    proven = proven.extended(log.checkpoint())
    assert proven.key == log.signer.public
    stranger = SignedLog(seed=9)
    stranger.grow(5)
    with pytest.raises(ProofError, match="another key"):
        proven.extended(stranger.checkpoint())


def test_a_forged_endorsement_is_refused() -> None:
    """A stranger who copies the statements of the known keys and adds his own gets nowhere."""
    log = SignedLog()
    proven = _seen(log, 2)
    log.rotate(2)
    log.keys[-1] = type(log.keys[-1])(
        log.keys[-1].key_id, log.keys[-1].public_key, log.keys[-1].previous_key_id, bytes(64)
    )
    with pytest.raises(ProofError, match="not endorsed"):
        proven.extended(log.checkpoint())


def test_a_first_checkpoint_must_fit_together() -> None:
    """Frontier and key belong to the note."""
    log = SignedLog()
    log.grow(4)
    signed = log.checkpoint()
    signed.frontier[0] = bytes(32)
    with pytest.raises(ProofError, match="root"):
        first_seen(signed)
    del signed.keys[:]
    with pytest.raises(ProofError, match="no key"):
        first_seen(signed)
