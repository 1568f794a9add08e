"""Checkpoints: signed statements that a log has so many records, and that these are they.

A checkpoint is a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint) in a C2SP signed note
(https://c2sp.org/signed-note), so tools of transparency logs read it:

    hivefold/log/<chain id>
    <size>
    <base64 of the root>
    term <term>
    head <hash of the last record>

    — hivefold/log/<chain id> <base64 of key hash and signature>

The chain id is the hash of record 1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from hivefold.errors import ProofError
from hivefold.proof.keys import PublicKey, Signer

_NOTE_CHARACTERS: Final = 1024
_ORIGIN: Final = "hivefold/log/"
_ED25519: Final = b"\x01"
_KEY_HASH_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_NOTE: Final = re.compile(
    r"(?P<text>hivefold/log/(?P<chain>[0-9a-f]{64})\n"
    r"(?P<size>[1-9][0-9]{0,18})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"term (?P<term>[1-9][0-9]{0,18})\n"
    r"head (?P<head>[0-9a-f]{64})\n)"
    r"\n"
    r"\u2014 (?P<name>\S+) (?P<signature>[A-Za-z0-9+/]+={0,2})\n",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed: the log's id, its size, the root of its tree, the term and the hash of its last record."""

    chain_id: bytes
    size: int
    root: bytes
    term: int
    head: bytes

    @property
    def origin(self) -> str:
        """The log's name, and that of its key."""
        return _ORIGIN + self.chain_id.hex()

    def text(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\nterm {self.term}\nhead {self.head.hex()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint as it was read, with its signature. Nothing is verified yet."""

    checkpoint: Checkpoint
    text: str
    key_hash: bytes
    signature: bytes

    def is_by(self, key: PublicKey) -> bool:
        """Whether it says that `key` signed it."""
        return self.key_hash == key_hash(self.checkpoint.origin, key)

    def verified(self, key: PublicKey) -> Checkpoint:
        """The checkpoint. Raises ProofError unless `key` signed it."""
        if not self.is_by(key):
            raise ProofError(f"checkpoint {self.checkpoint.size} is not signed with key {key.key_id} but with another")
        if not key.verifies(self.signature, self.text.encode()):
            raise ProofError(f"the signature of checkpoint {self.checkpoint.size} is not that of key {key.key_id}")
        return self.checkpoint


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> str:
    """The signed note."""
    text = checkpoint.text()
    signature = signer.sign(text.encode())
    encoded = base64.b64encode(key_hash(checkpoint.origin, signer.public) + signature).decode()
    return f"{text}\n\u2014 {checkpoint.origin} {encoded}\n"


def read_note(note: str) -> Note:
    """Parses a signed note strictly: there is one way to write each. Raises ProofError."""
    found = _NOTE.fullmatch(note) if len(note) <= _NOTE_CHARACTERS else None
    if found is None or found["name"] != _ORIGIN + found["chain"]:
        raise ProofError("a checkpoint is not a note as docs/log-format.md describes it: it was altered or is foreign")
    signature, root = _base64(found["signature"]), _base64(found["root"])
    if len(signature) != _KEY_HASH_BYTES + _SIGNATURE_BYTES:
        raise ProofError(f"checkpoint {found['size']} has no Ed25519 signature")
    checkpoint = Checkpoint(
        bytes.fromhex(found["chain"]), int(found["size"]), root, int(found["term"]), bytes.fromhex(found["head"])
    )
    return Note(checkpoint, found["text"], signature[:_KEY_HASH_BYTES], signature[_KEY_HASH_BYTES:])


def key_hash(name: str, key: PublicKey) -> bytes:
    """Which key signed, in four bytes (C2SP signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.raw).digest()[:_KEY_HASH_BYTES]


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if base64.b64encode(raw).decode() != text:
        raise ProofError("a checkpoint holds malformed base64: it was altered")
    return raw
