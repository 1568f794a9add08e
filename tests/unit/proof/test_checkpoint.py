"""Signed notes: written one way, read strictly, verified with the key that they name."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivefold.errors import ProofError
from hivefold.proof.checkpoint import Checkpoint, key_hash, read_note, sign_checkpoint
from hivefold.proof.keys import PublicKey, Signer

SIGNER = Signer.of_seed(bytes(range(32)))
CHECKPOINT = Checkpoint(b"\x07" * 32, 1234, b"\x08" * 32, 5, b"\x09" * 32)
NOTE = sign_checkpoint(CHECKPOINT, SIGNER)


def test_what_was_signed_is_read_back() -> None:
    """Each field survives, and the owner's key verifies it."""
    assert read_note(NOTE).verified(SIGNER.public) == CHECKPOINT
    assert NOTE.startswith(f"hivefold/log/{'07' * 32}\n1234\n{base64.b64encode(CHECKPOINT.root).decode()}\nterm 5\n")


def test_a_note_of_the_published_format_is_verified_our_way() -> None:
    """The example of Go's golang.org/x/mod/sumdb/note: its key hash and its signature come out as ours."""
    name, hash_hex, encoded = ["PeterNeumann", "c74f20a3", "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
    raw = base64.b64decode(encoded)
    assert raw[0] == 1
    key = PublicKey(raw[1:])
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    signature = base64.b64decode(line)
    assert signature[:4] == key_hash(name, key) == bytes.fromhex(hash_hex)
    assert key.verifies(signature[4:], text.encode())


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_no_other_text_verifies(at: int, character: str) -> None:
    """A note with one character changed is not read, or not verified."""
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    if changed == NOTE:
        return
    with pytest.raises(ProofError):
        read_note(changed).verified(SIGNER.public)


@pytest.mark.parametrize(
    "note",
    [
        "",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n1234\n", "\n01234\n"),
        NOTE + NOTE,
        "x" * 5000,
        NOTE.replace("\n", "\r\n"),
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    """There is one way to write a checkpoint."""
    with pytest.raises(ProofError):
        read_note(note)


def test_another_key_does_not_verify() -> None:
    """The error names the key that was expected."""
    other = Signer.of_seed(b"\x01" * 32).public
    with pytest.raises(ProofError, match=other.key_id):
        read_note(NOTE).verified(other)


def test_the_private_key_does_not_show() -> None:
    """Neither repr nor str of a signer holds the key."""
    assert repr(SIGNER) == str(SIGNER) == f"Signer({SIGNER.public.key_id})"
