"""Log files: what is written reads back, and nothing altered, moved or missing goes unnoticed."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.replay import Replayer, replay
from hivefold import limits
from hivefold.errors import ConflictError, LogCorruptError, LogFileInvalidError, Reason
from hivefold.log import framing
from hivefold.log.file import LogFileReader
from hivefold.log.file_writer import LogFileStart, LogFileWriter
from hivefold.log.port import TERM_SUBJECT, Head, Stored
from tests.unit.log.logs import golden_records, hash_of, write_file

RECORDS = golden_records()


def read_all(path: Path) -> None:
    """Reads every entry and folds the records, as a verifier does."""
    with LogFileReader(path) as reader:
        replayer = Replayer()
        for _, entry in reader.entries():
            if entry.HasField("record"):
                stored = entry.record
                assert stored.hash == hash_of(Stored(stored.sequence, stored.subject, stored.data))
                replayer.feed([Stored(stored.sequence, stored.subject, stored.data)])


def reads(path: Path) -> bool:
    """Whether a verifier finds nothing wrong."""
    try:
        read_all(path)
    except (LogCorruptError, AssertionError):
        return False
    return True


async def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """Every record, in order, from any position on; only the owner may read it; nothing else is left behind."""
    path = write_file(tmp_path / "log.hflog", RECORDS, checkpoint_at=7)

    with LogFileReader(path) as reader:
        assert list(reader.records()) == RECORDS
        assert list(reader.records(after=20)) == RECORDS[20:]
        assert await reader.head() == Head(len(RECORDS), max(r.sequence for r in RECORDS if r.subject == TERM_SUBJECT))
        pages = [page async for page in reader.read(after=5, up_to=30)]
        assert [record for page in pages for record in page] == RECORDS[5:30]
        assert reader.end.checkpoint_count == 1
        assert reader.end.last_hash == hash_of(RECORDS[-1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_a_file_can_be_replayed(tmp_path: Path) -> None:
    """coordinator.replay folds a file as it folds a log."""
    path = write_file(tmp_path / "log.hflog", RECORDS)
    live = Replayer()
    live.feed(RECORDS)

    with LogFileReader(path) as reader:
        head = await reader.head()
        assert await replay(reader, up_to=head.sequence) == live.result()


async def test_a_segment_begins_later(tmp_path: Path) -> None:
    """A file may hold the middle of a log: it gives what it holds and refuses the rest by position."""
    path = write_file(tmp_path / "segment.hflog", RECORDS, first=11)

    with LogFileReader(path) as reader:
        assert [entry.record.sequence for _, entry in reader.entries()][:2] == [11, 12]
        assert list(reader.records()) == RECORDS[10:]
        assert reader.header.chain_id == hash_of(RECORDS[0])
        with pytest.raises(LogCorruptError) as early:
            await anext(reader.read(after=3, up_to=12))
        with pytest.raises(LogCorruptError) as late:
            async for _ in reader.read(after=11, up_to=1000):
                pass
    assert (early.value.position, late.value.position) == (4, len(RECORDS) + 1)


def test_every_flipped_bit_is_caught(tmp_path: Path) -> None:
    """No single bit of a file, header and end included, can change unnoticed; what comes before it still reads."""
    path = write_file(tmp_path / "log.hflog", RECORDS[:3], checkpoint_at=2)
    whole = path.read_bytes()
    with LogFileReader(path) as reader:
        (first, _), *_ = reader.entries()
    bits = [*range(64), *range(64, first * 8, 97), *range(first * 8, len(whole) * 8, 3)]

    for bit in bits:
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        assert not reads(path), f"bit {bit} of byte {bit // 8}"


@pytest.mark.parametrize("left", [0, 7, 100, 30_000, -1, -9])
def test_a_file_cut_short_is_named(tmp_path: Path, left: int) -> None:
    """Whoever reads a part of a file learns where it ends, by byte and by position."""
    path = write_file(tmp_path / "log.hflog", RECORDS)
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(LogFileInvalidError) as caught:
        read_all(path)

    assert caught.value.reason is Reason.LOG_FILE_INVALID
    assert 0 <= caught.value.offset <= path.stat().st_size
    assert 1 <= caught.value.position <= len(RECORDS) + 1


async def test_a_file_cut_short_has_no_head(tmp_path: Path) -> None:
    """The exact place is named also by one who asks for the head only."""
    path = write_file(tmp_path / "log.hflog", RECORDS)
    with LogFileReader(path) as reader:
        offset = next(offset for offset, entry in reader.entries() if entry.record.sequence == 10)
    path.write_bytes(path.read_bytes()[: offset + 20])

    with LogFileReader(path) as reader, pytest.raises(LogFileInvalidError) as caught:
        await reader.head()

    assert (caught.value.offset, caught.value.position) == (offset, 10)


@pytest.mark.parametrize(
    ("move", "position"),
    [
        (lambda e: [*e[:4], *e[5:]], 5),
        (lambda e: [*e[:4], e[4], e[4], *e[5:]], 6),
        (lambda e: [*e[:4], e[5], e[4], *e[6:]], 5),
        (lambda e: e[:4], 5),
        (lambda e: [*e, e[-1]], len(RECORDS)),
    ],
    ids=["dropped", "repeated", "swapped", "rest dropped", "end twice"],
)
def test_moved_entries_are_named(tmp_path: Path, move: Callable[[list[bytes]], list[bytes]], position: int) -> None:
    """An entry that is dropped, repeated or moved is refused at the position where that shows."""
    path = write_file(tmp_path / "log.hflog", RECORDS)
    whole = path.read_bytes()
    with LogFileReader(path) as reader:
        offsets = [offset for offset, _ in reader.entries()]
    entries = [whole[a:b] for a, b in zip(offsets, [*offsets[1:], len(whole) - framing.TRAILER.size], strict=True)]
    path.write_bytes(whole[: offsets[0]] + b"".join(move(entries)) + whole[-framing.TRAILER.size :])

    with LogFileReader(path) as reader, pytest.raises(LogFileInvalidError) as caught:
        list(reader.entries())

    assert caught.value.position == position


def test_an_impossible_length_is_not_believed(tmp_path: Path) -> None:
    """A damaged length asks for no more memory than an entry may take."""
    path = write_file(tmp_path / "log.hflog", RECORDS)
    with LogFileReader(path) as reader:
        (offset, _), *_ = reader.entries()
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + b"\xff\xff\xff\x7f" + whole[offset + 4 :])

    with pytest.raises(LogFileInvalidError, match="impossible length"):
        read_all(path)


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    """A file that could not be finished never stands under its name; one that stands there stays."""
    path = tmp_path / "log.hflog"
    with pytest.raises(LogCorruptError) as caught, LogFileWriter(path, LogFileStart(hash_of(RECORDS[0]))) as writer:
        writer.records([RECORDS[0], RECORDS[2]])
    assert caught.value.position == 2
    assert list(tmp_path.iterdir()) == []

    path.write_text("mine")
    with pytest.raises(ConflictError, match="--force") as taken:
        LogFileWriter(path, LogFileStart(b""))
    assert taken.value.reason is Reason.INVALID_ARGUMENT
    assert path.read_text() == "mine"


def test_a_log_without_records_is_a_file(tmp_path: Path) -> None:
    """It has a header and an end."""
    path = write_file(tmp_path / "log.hflog", [])

    with LogFileReader(path) as reader:
        ((_, entry),) = reader.entries()
        assert (entry.end.record_count, entry.end.last_sequence) == (0, 0)
        assert list(reader.records()) == []


def test_marks_stay_few_and_lead_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the file, the end names a bounded number of places; reading from any of them gives the record."""
    monkeypatch.setattr(framing, "LOG_FILE_MARKS", 8)
    monkeypatch.setattr(framing, "LOG_FILE_MARK_RECORDS", 1)
    path = write_file(tmp_path / "log.hflog", RECORDS)

    with LogFileReader(path) as reader:
        list(reader.entries())
        assert 4 <= len(reader.end.marks) <= 8
        for after in range(len(RECORDS)):
            assert next(reader.records(after=after)) == RECORDS[after]


def test_the_schema_reads_the_records(tmp_path: Path) -> None:
    """What the header carries is enough to read the records with nothing else of hivefold."""
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    path = write_file(tmp_path / "log.hflog", RECORDS)
    with LogFileReader(path) as reader:
        pool = DescriptorPool()
        for file in reader.header.schema.file:
            pool.Add(file)
    read: Any = GetMessageClass(pool.FindMessageTypeByName("hivefold.v1.Record"))
    record = read.FromString(RECORDS[0].data)

    assert record.events[0].term_started.coordinator_id == "c1"
    assert path.stat().st_size < limits.LOG_FILE_ENTRY_BYTES
