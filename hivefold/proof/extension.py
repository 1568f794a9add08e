"""What a checkpoint proves to someone who has seen an earlier one: that the log only grew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from hivefold.errors import ConfigError, ProofError
from hivefold.proof.checkpoint import Checkpoint, read_note
from hivefold.proof.keys import KeyStatement, PublicKey
from hivefold.proof.merkle import CompactRange
from hivefold.v1 import checkpoint_pb2 as pb

WITNESS_FILE: Final = "witness"
"""Name of the file in a node's data directory: the last checkpoint that it believed."""


class GapError(ProofError):
    """The checkpoint does not go on from the one that was seen: those between them are needed."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What was shown of a log: its last checkpoint, the range over all its records, and the key that signs."""

    checkpoint: Checkpoint
    tree: CompactRange
    key: PublicKey

    def extended(self, signed: pb.SignedCheckpoint) -> Proven:
        """What is proven once `signed` was checked against it.

        Raises ProofError when the log is another, is shorter, was rewritten or is signed by a key that the
        known one did not endorse; GapError when earlier checkpoints are needed to tell.
        """
        note = read_note(signed.note)
        claimed, known = note.checkpoint, self.checkpoint
        if claimed.chain_id != known.chain_id:
            raise ProofError(f"this is another log: {claimed.origin}, not {known.origin}")
        key = successor(self.key, keys_of(signed), known.chain_id)
        checkpoint = note.verified(key)
        if checkpoint.size < known.size:
            raise ProofError(
                f"the log was cut: it has {checkpoint.size} records in term {checkpoint.term}, "
                f"and had {known.size} in term {known.term}"
            )
        if checkpoint.size == known.size:
            tree = self.tree
        elif signed.previous_size != known.size:
            raise GapError(
                f"checkpoint {checkpoint.size} goes on from {signed.previous_size}, and {known.size} was the last seen"
            )
        else:
            tree = self.tree.joined(compact_range(known.size, checkpoint.size, signed.range))
        if tree.root() != checkpoint.root or (checkpoint.size == known.size and checkpoint.head != known.head):
            raise ProofError(
                f"the log was rewritten: checkpoint {checkpoint.size} of term {checkpoint.term} does not extend "
                f"checkpoint {known.size} of term {known.term}"
            )
        if checkpoint.term < known.term:
            raise ProofError(f"checkpoint {checkpoint.size} says term {checkpoint.term} after term {known.term}")
        return Proven(checkpoint, tree, key)


def first_seen(signed: pb.SignedCheckpoint) -> Proven:
    """What the first checkpoint that one sees proves: its key and what came before are taken on trust.

    Raises ProofError when it is not consistent in itself.
    """
    note = read_note(signed.note)
    statements = keys_of(signed)
    if not statements:
        raise ProofError(f"checkpoint {note.checkpoint.size} names no key")
    key = PublicKey(statements[-1].public_key)
    checkpoint = note.verified(key)
    tree = compact_range(0, checkpoint.size, signed.frontier)
    if tree.root() != checkpoint.root:
        raise ProofError(f"the frontier of checkpoint {checkpoint.size} does not have its root")
    return Proven(checkpoint, tree, key)


def read_proven(path: Path) -> Proven | None:
    """What a witness kept of a log in its file; None when there is none. Raises ConfigError."""
    try:
        return first_seen(pb.SignedCheckpoint.FromString(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, DecodeError, ProofError) as error:
        raise ConfigError(
            f"the last checkpoint that was seen cannot be read from {path}: {error}; look at the disk, then "
            "remove the file to trust the coordinator anew"
        ) from None


def successor(known: PublicKey, statements: Iterable[KeyStatement], chain_id: bytes) -> PublicKey:
    """The key that signs now, reached from the known one by endorsements. Raises ProofError when it is not."""
    key, reached = known, False
    for statement in statements:
        if statement.public_key == known.raw:
            key, reached = known, True
        elif reached:
            key = statement.check(chain_id, key)
    if not reached:
        raise ProofError(f"the log is signed with another key, and key {known.key_id} is not among those before it")
    return key


def keys_of(signed: pb.SignedCheckpoint) -> list[KeyStatement]:
    """The signing keys that it names, oldest first."""
    return [KeyStatement(key.key_id, key.public_key, key.previous_key_id, key.endorsement) for key in signed.keys]


def compact_range(begin: int, end: int, hashes: Iterable[bytes]) -> CompactRange:
    """A range out of a message. Raises ProofError when it is none."""
    try:
        return CompactRange(begin, end, tuple(hashes))
    except ValueError as error:
        raise ProofError(f"a checkpoint is malformed: {error}") from None
