"""The kinds of mutations. Each gives bytes of a file and the positions that are right to name.

What happens to a checkpoint stands between its last record and the next: both name it. A chain that was rewritten
from a record on fits together; then the first record of the smallest subtree that the signed hashes tell apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from hivefold.log.chain import record_hash
from hivefold.proof.checkpoint import read_note, sign_checkpoint
from hivefold.proof.keys import Signer
from hivefold.proof.merkle import subtrees
from hivefold.v1.log_file_pb2 import LogFileEntry
from hivefold.v1.record_pb2 import Record
from tests.mutations.logs import SignedFile


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutated file, the positions that may be named, and whether a witness of the original is at hand."""

    data: bytes
    positions: frozenset[int]
    witnessed: bool = False


Kind: TypeAlias = Callable[[SignedFile, SignedFile, random.Random], Mutant]


def flip_bit(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """One bit anywhere among the entries, as a disk does."""
    data, begins = bytearray(file.to_bytes()), _begins(file)
    at = draw.randrange(begins[0], begins[-1])
    data[at] ^= 1 << draw.randrange(8)
    index = next(i for i in range(len(file.entries)) if begins[i] <= at < begins[i + 1])
    return Mutant(bytes(data), _named(file, index))


def alter_record(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """A byte of a record is another, and the hash beside it, the end and the digests fit."""
    position = draw.randint(1, file.records)
    index = file.index_of(position)
    record = file.entries[index].record
    data = bytearray(record.data)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return _replaced(file, index, _stored(position, record.subject, bytes(data)), {position})


def drop(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """An entry is gone. Not the first checkpoint: the next one signs the same records, so nothing is lost with it."""
    entries = list(file.entries)
    first = next(i for i, entry in enumerate(entries) if entry.HasField("checkpoint"))
    index = draw.choice([i for i in range(len(entries)) if i != first])
    named = _named(file, index)
    del entries[index]
    if index == len(entries) and file.entries[index].HasField("checkpoint"):
        return Mutant(file.with_entries(entries).to_bytes(), named, witnessed=True)
    return Mutant(file.with_entries(entries).to_bytes(), named)


def repeat(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """An entry comes twice: the second is where the next should be."""
    entries = list(file.entries)
    index = draw.randrange(len(entries))
    entries.insert(index, entries[index])
    after = {max(_named(file, index)) + 1} if entries[index].HasField("record") else set(_named(file, index))
    return Mutant(file.with_entries(entries).to_bytes(), frozenset(after))


def reorder(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """An entry changes places with the next."""
    entries = list(file.entries)
    index = draw.randrange(len(entries) - 1)
    entries[index], entries[index + 1] = entries[index + 1], entries[index]
    return Mutant(file.with_entries(entries).to_bytes(), frozenset({min(_named(file, index))}))


def truncate(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """The file ends in its middle."""
    begins = _begins(file)
    at = draw.randrange(begins[0], begins[-1])
    index = next(i for i in range(len(file.entries)) if begins[i] <= at < begins[i + 1])
    return Mutant(file.to_bytes()[:at], _named(file, index))


def cut_off(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """The log ends at an earlier checkpoint and all fits: only who saw more of it can tell."""
    ends = [i for i, entry in enumerate(file.entries[:-1]) if entry.HasField("checkpoint")]
    index = draw.choice(ends)
    last = read_note(file.entries[index].checkpoint.note).checkpoint.size
    return Mutant(file.with_entries(list(file.entries[: index + 1])).to_bytes(), frozenset({last + 1}), witnessed=True)


def splice_record(file: SignedFile, other: SignedFile, draw: random.Random) -> Mutant:
    """A record of another log."""
    position = draw.randint(1, file.records)
    index = file.index_of(position)
    return _replaced(file, index, other.entries[other.index_of(position)], {position})


def splice_tail(file: SignedFile, other: SignedFile, draw: random.Random) -> Mutant:
    """From a record on, all is of another log: records and checkpoints."""
    position = draw.randint(2, file.records)
    entries = [*file.entries[: file.index_of(position)], *other.entries[other.index_of(position) :]]
    return Mutant(file.with_entries(entries).to_bytes(), frozenset({position}))


def sign_again(file: SignedFile, other: SignedFile, draw: random.Random) -> Mutant:
    """From a checkpoint on, all are signed with a stranger's key, which they name or do not."""
    entries = [_copy(entry) for entry in file.entries]
    signed = [i for i, entry in enumerate(entries) if entry.HasField("checkpoint")]
    first, naming = draw.choice(signed), draw.random() < 0.5
    for index in (i for i in signed if i >= first):
        checkpoint = entries[index].checkpoint
        checkpoint.note = sign_checkpoint(read_note(checkpoint.note).checkpoint, other.signer)
        if naming:
            _name_key(entries[index], other.signer)
    return Mutant(file.with_entries(entries).to_bytes(), _named(file, first))


def rewrite(file: SignedFile, _: SignedFile, draw: random.Random) -> Mutant:
    """A record is another and every record after it is linked anew: the chain fits, the signatures do not."""
    position = draw.randint(2, file.records)
    entries, previous = [_copy(entry) for entry in file.entries], b""
    for entry in entries:
        if not entry.HasField("record") or entry.record.sequence < position:
            previous = entry.record.hash or previous
            continue
        record = Record.FromString(entry.record.data)
        record.previous_hash = previous
        if record.sequence == position:
            record.record_id = bytes(16)
        entry.CopyFrom(_stored(record.sequence, entry.record.subject, record.SerializeToString()))
        previous = entry.record.hash
    return Mutant(file.with_entries(entries).to_bytes(), frozenset({_distinguishable(file, position)}))


KINDS: Final[tuple[Kind, ...]] = (
    flip_bit,
    alter_record,
    drop,
    repeat,
    reorder,
    truncate,
    cut_off,
    splice_record,
    splice_tail,
    sign_again,
    rewrite,
)


def _distinguishable(file: SignedFile, position: int) -> int:
    for entry in file.entries:
        if entry.HasField("checkpoint"):
            size, begin = read_note(entry.checkpoint.note).checkpoint.size, entry.checkpoint.previous_size
            if size == position:
                return position
            if size > position:
                return next(s + 1 for s, level in subtrees(begin, size) if s < position <= s + (1 << level))
    raise AssertionError("the last record is signed")


def _named(file: SignedFile, index: int) -> frozenset[int]:
    entry = file.entries[index]
    if entry.HasField("record"):
        return frozenset({entry.record.sequence})
    size = read_note(entry.checkpoint.note).checkpoint.size
    return frozenset({size, size + 1})


def _begins(file: SignedFile) -> list[int]:
    """Where each entry begins, and where the last one ends."""
    prefix = len(replace(file, entries=()).to_bytes()) - len(_end_of(replace(file, entries=())))
    begins = [prefix]
    for entry in file.entries:
        size = entry.ByteSize()
        begins.append(begins[-1] + size + (1 if size < 1 << 7 else 2 if size < 1 << 14 else 3))
    return begins


def _end_of(file: SignedFile) -> bytes:
    data = file.to_bytes()
    return data[int.from_bytes(data[-8:], "big") :]


def _replaced(file: SignedFile, index: int, entry: LogFileEntry, positions: set[int]) -> Mutant:
    entries = list(file.entries)
    entries[index] = entry
    return Mutant(file.with_entries(entries).to_bytes(), frozenset(positions))


def _stored(position: int, subject: str, data: bytes) -> LogFileEntry:
    entry = LogFileEntry()
    record = entry.record
    record.sequence, record.subject, record.data = position, subject, data
    record.hash = record_hash(position, subject, data)
    return entry


def _copy(entry: LogFileEntry) -> LogFileEntry:
    copy = LogFileEntry()
    copy.CopyFrom(entry)
    return copy


def _name_key(entry: LogFileEntry, signer: Signer) -> None:
    key = entry.checkpoint.keys[-1]
    key.key_id, key.public_key = signer.public.key_id, signer.public.raw
