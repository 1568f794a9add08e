"""Verifies a log record by record: chain, order, terms, keys, tree and signatures. Names the first bad position.

Constant memory. A broken link shows that one of two records was altered; which of them, the next checkpoint tells:
with the hash that the later record claims for the earlier one, the signed root comes out only where the earlier
one is the altered one. A record whose own hash was noted beside it is known to be altered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from google.protobuf.message import DecodeError

from hivefold.errors import LogCorruptError, ProofError
from hivefold.log.chain import GENESIS_HASH, record_hash
from hivefold.log.port import KEY_SUBJECT, TERM_SUBJECT, Stored
from hivefold.proof.checkpoint import Checkpoint, Note, read_note
from hivefold.proof.extension import Proven, compact_range, keys_of
from hivefold.proof.key_history import KeyHistory
from hivefold.proof.keys import KeyStatement, PublicKey
from hivefold.proof.merkle import CompactRange, RangeBuilder, subtrees
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint
from hivefold.v1.record_pb2 import Record


@dataclass(frozen=True, slots=True)
class Beginning:
    """What comes before the first record that is verified: all of it empty at the beginning of a log.

    `chain_id` and `keys` may be empty; then those of the log itself count.
    """

    first_sequence: int = 1
    previous_hash: bytes = GENESIS_HASH
    chain_id: bytes = b""
    keys: tuple[KeyStatement, ...] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """What was verified: records, their last one and its hash, checkpoints, and the key that signed the last of them.

    `signed` is the size of the last checkpoint: what comes after it is linked and not signed yet.
    """

    records: int
    sequence: int
    term: int
    head: bytes
    checkpoints: int
    signed: int
    chain_id: bytes
    key: PublicKey | None


class LogVerifier:
    """Takes records and checkpoints in the order in which they were made; `result` ends it.

    With `key_id` the log must be signed with that key, or with keys that it endorsed or was endorsed by. With
    `witness`, what somebody saw of the log, it must extend that. Every method raises LogCorruptError with the first
    bad position.
    """

    def __init__(self, start: Beginning | None = None, *, key_id: str = "", witness: Proven | None = None) -> None:
        start = start or Beginning()
        self._first = start.first_sequence
        self._position = start.first_sequence - 1
        self._hash = start.previous_hash
        self._chain_id = start.chain_id
        self._keys = KeyHistory(start.keys, from_first_record=self._first == 1)
        self._first_key = 0
        """Position of the first record that names a key; 0 before there is one."""
        self._key_id = key_id
        self._witness = witness
        self._term = 0
        self._since = RangeBuilder(CompactRange(self._position, self._position))
        self._tree: CompactRange | None = CompactRange() if self._position == 0 else None
        """None until a checkpoint says what came before the first record."""
        self._last: Checkpoint | None = None
        self._checkpoints = 0
        self._suspect = 0
        """A record that the one after it does not know; which of the two was altered is not settled."""

    def record(self, stored: Stored, noted_hash: bytes | None = None) -> None:
        """The next record, with the hash that was noted beside it where there is one."""
        position = self._position + 1
        if stored.sequence != position:
            self._bad(position, f"record {position} is missing: the log goes on with {stored.sequence}")
        try:
            record = Record.FromString(stored.data)
        except DecodeError:
            self._bad(position, f"record {position} does not parse")
        found = record_hash(position, stored.subject, stored.data)
        if noted_hash is not None and found != noted_hash:
            self._bad(position, f"record {position} was altered: it does not have the hash that was noted for it")
        if record.sequence != position:
            self._bad(position, f"record {position} says that it is record {record.sequence}: records were moved")
        if record.previous_hash != self._hash:
            self._broken_link(position, record.previous_hash)
        self._add_last()
        self._position, self._hash = position, found
        if record.term != self._term:
            self._new_term(stored, record)
        if position == 1:
            self._first_record(found)
        if stored.subject == KEY_SUBJECT:
            self._change_keys(record)

    def checkpoint(self, signed: SignedCheckpoint) -> None:
        """A checkpoint over all records so far."""
        position = self._position
        try:
            self._take(signed)
        except ProofError as error:
            self._bad(position, error.message)
        if self._suspect:
            self._bad(self._suspect, f"record {self._suspect} was altered: what was signed is another")

    def result(self) -> Verified:
        """What was verified."""
        if self._suspect:
            self._bad(self._suspect + 1, f"record {self._suspect + 1} does not follow from record {self._suspect}")
        if self._witness is not None and self._witness.checkpoint.size > self._position:
            self._bad(
                self._position + 1,
                f"the log ends with record {self._position}, and a checkpoint over {self._witness.checkpoint.size} "
                "records was seen: it was cut",
            )
        if self._witness is not None and (self._last is None or self._last.size < self._witness.checkpoint.size):
            size = self._witness.checkpoint.size
            self._bad(size, f"a checkpoint over {size} records was seen, and none is here: it was taken out")
        if self._key_id and not self._keys.names(self._key_id):
            named = self._first_key or self._first
            self._bad(named, f"key {self._key_id} is none of the log's keys: the log is signed by somebody else")
        if self._key_id and self._last is None:
            self._bad(self._first, f"there is no checkpoint: nothing shows that key {self._key_id} signed this log")
        return Verified(
            records=self._position - self._first + 1,
            sequence=self._position,
            term=self._term,
            head=self._hash,
            checkpoints=self._checkpoints,
            signed=self._last.size if self._last else 0,
            chain_id=self._chain_id,
            key=self._keys.last if self._last else None,
        )

    # -- records ------------------------------------------------------------

    def _add_last(self) -> None:
        """Adds the record before to the tree: not earlier, for its successor may know another hash of it."""
        if self._since.end < self._position:
            self._since.add(self._hash)
            self._check_witness()

    def _broken_link(self, position: int, claimed: bytes) -> None:
        """Record `position` names another record before it than the one that is there."""
        before = position - 1
        proven = self._last.size if self._last else self._first - 1
        if self._suspect or before <= proven:
            bad = before if self._suspect else position
            self._bad(bad, f"record {bad} was altered: it does not fit to the records beside it")
        self._suspect = before
        self._hash = claimed

    def _new_term(self, stored: Stored, record: Record) -> None:
        position = self._position
        if self._term and (record.term < self._term or stored.subject != TERM_SUBJECT):
            self._bad(position, f"record {position} carries term {record.term} after term {self._term}")
        self._term = record.term

    def _first_record(self, found: bytes) -> None:
        if self._chain_id and self._chain_id != found:
            self._bad(1, "record 1 is not that of the log")
        self._chain_id = found

    def _change_keys(self, record: Record) -> None:
        position = self._position
        for event in record.events:
            if event.WhichOneof("body") != "signing_key_changed":
                continue
            body = event.signing_key_changed
            statement = KeyStatement(body.key_id, body.public_key, body.previous_key_id, body.endorsement)
            try:
                self._keys.change(statement, self._chain_id)
            except ProofError as error:
                self._bad(position, error.message)
            self._first_key = self._first_key or position

    # -- checkpoints --------------------------------------------------------

    def _take(self, signed: SignedCheckpoint) -> None:
        """Raises ProofError when the checkpoint does not stand for the records so far."""
        note = read_note(signed.note)
        claim = note.checkpoint
        if claim.size > self._position:
            self._bad(self._position + 1, f"record {self._position + 1} is missing: checkpoint {claim.size} comes here")
        if claim.size < self._position:
            # One that was moved is what it was; any other was altered where it stands.
            moved = _is_signed(note, keys_of(signed))
            self._bad(claim.size if moved else self._position, f"checkpoint {claim.size} comes after {self._position}")
        self._check_previous(signed, claim)
        if self._chain_id and claim.chain_id != self._chain_id:
            raise ProofError(f"checkpoint {claim.size} is of another log: {claim.origin}")
        note.verified(self._signer(signed, claim))
        if claim.term != self._term:
            raise ProofError(f"checkpoint {claim.size} says term {claim.term}, its last record {self._term}")
        if claim.head != self._hash and not self._suspect and self._fits(claim):
            raise ProofError(f"record {claim.size} was altered: another was signed")
        self._add_last()
        tree = self._signed_tree(signed, claim)
        if claim.head != self._hash:
            raise ProofError(f"the head of checkpoint {claim.size} is not the hash of its last record")
        self._chain_id, self._last, self._tree = claim.chain_id, claim, tree
        self._since = RangeBuilder(CompactRange(claim.size, claim.size))
        self._checkpoints += 1

    def _check_previous(self, signed: SignedCheckpoint, claim: Checkpoint) -> None:
        """Tells a checkpoint that is missing before this one from one that says something else than it did."""
        if self._last is None or signed.previous_size == self._last.size:
            return
        since = self._since.range().extended([self._hash] if self._since.end < claim.size else [])
        if not self._last.size < signed.previous_size < claim.size or tuple(signed.range) == since.hashes:
            raise ProofError(f"checkpoint {claim.size} goes on from {signed.previous_size}: it was altered")
        missing = signed.previous_size
        self._bad(missing, f"checkpoint {claim.size} goes on from {missing}, and that checkpoint is missing")

    def _signer(self, signed: SignedCheckpoint, claim: Checkpoint) -> PublicKey:
        """The key that the log names at this size. The checkpoint names it, and those before it, too."""
        key = self._keys.signer(keys_of(signed), claim.chain_id)
        if key is None:
            raise ProofError(f"checkpoint {claim.size} names other keys than the log does")
        return key

    def _signed_tree(self, signed: SignedCheckpoint, claim: Checkpoint) -> CompactRange:
        """The tree over all records, once it has the signed root. Names the subtree in which it does not."""
        frontier = compact_range(0, claim.size, signed.frontier)
        if frontier.root() != claim.root:
            raise ProofError(f"the frontier of checkpoint {claim.size} does not have its root: it was altered")
        if self._tree is None:
            return frontier
        tree = self._tree.joined(self._since.range())
        if tree == frontier:
            if self._last is not None or not signed.previous_size:
                self._check_range(signed, claim)
            return tree
        first = self._suspect + 1 if self._suspect else self._first_difference(signed, claim)
        return self._bad(first, f"records from {first} on were rewritten: the signed root is that of others")

    def _fits(self, claim: Checkpoint) -> bool:
        """Whether the root comes out with the head that was signed: then the last record is the altered one."""
        last = self._since.range().extended([claim.head]) if self._since.end < claim.size else None
        return last is not None and self._tree is not None and self._tree.joined(last).root() == claim.root

    def _check_range(self, signed: SignedCheckpoint, claim: Checkpoint) -> None:
        if tuple(signed.range) != self._since.range().hashes:
            raise ProofError(f"the range of checkpoint {claim.size} is not that of its records: it was altered")

    def _first_difference(self, signed: SignedCheckpoint, claim: Checkpoint) -> int:
        """The first record that may be another: the first of the first subtree that is another."""
        ours = self._since.range()
        theirs = compact_range(ours.begin, claim.size, signed.range)
        if self._tree is None or self._tree.joined(theirs).root() != claim.root:
            return ours.begin + 1
        places = zip(subtrees(ours.begin, ours.end), ours.hashes, theirs.hashes, strict=True)
        return next(start + 1 for (start, _), our, their in places if our != their)

    def _check_witness(self) -> None:
        """Compares the tree with what the witness saw, where it is as large as that."""
        witness = self._witness
        if witness is None or self._since.end != witness.checkpoint.size or self._tree is None:
            return
        tree = self._tree.joined(self._since.range())
        if tree.root() != witness.checkpoint.root:
            first = tree.end if self._last is None else self._last.size + 1
            self._bad(first, f"the log is not the one that was seen with {tree.end} records: it was rewritten")

    def first_bad(self, position: int) -> int:
        """The first bad position, when something at `position` is known to be wrong."""
        return min(position, self._suspect + 1) if self._suspect else position

    def _bad(self, position: int, why: str) -> NoReturn:
        found = self.first_bad(position)
        if found < position:
            why = f"record {found} was altered: it does not fit to the records beside it ({why})"
        raise LogCorruptError(why, position=found)


def _is_signed(note: Note, named: Sequence[KeyStatement]) -> bool:
    """Whether the last of the keys that a checkpoint names signed it."""
    try:
        note.verified(PublicKey(named[-1].public_key))
    except (ProofError, IndexError):
        return False
    return True
