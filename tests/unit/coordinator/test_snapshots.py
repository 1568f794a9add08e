"""Snapshots: a start from one is a start from record 1, only sooner; none that is in doubt is used."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.contenders.history import History
from coordinator.core.model import State
from coordinator.replay import NOTHING, Replayed, Replayer, replay
from coordinator.snapshots import (
    Snapshotter,
    folding_sources,
    latest_snapshot,
    reducer_version,
    restore,
    version_of,
    write_snapshot,
)
from hivefold import limits
from hivefold.entropy import SeededEntropy
from hivefold.errors import BrokerUnavailableError, LogCorruptError
from hivefold.log.memory import MemoryEventLog
from hivefold.log.port import Stored
from hivefold.log.snapshots import MemorySnapshots
from tests.tidy.source import ROOT, modules

END = 60


@pytest.fixture
def log() -> MemoryEventLog:
    """Jobs of a few tasks, one after another."""
    history = History(SeededEntropy(7), job_tasks=5, at_once=2)
    entries = [entry for entry, _ in history.entries(400)][:END]
    return MemoryEventLog([Stored(at, entry.subject, entry.data) for at, entry in enumerate(entries, 1)])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemorySnapshots:
    monkeypatch.setattr(limits, "SNAPSHOT_PART_BYTES", 500)
    monkeypatch.setattr(limits, "RECENT_JOBS", 2)
    return MemorySnapshots()


async def folded(log: MemoryEventLog, up_to: int) -> Replayed:
    return await replay(log, up_to=up_to) if up_to else NOTHING


async def test_any_snapshot_and_what_came_since_is_the_whole(log: MemoryEventLog, store: MemorySnapshots) -> None:
    """For every position: state, hash, tree and digest are those of a replay from record 1."""
    whole = await folded(log, END)
    for position in range(1, END + 1):
        await write_snapshot(store, await folded(log, position), f"s{position}")
        start = await latest_snapshot(store, log, END)
        restored = await restore(store, log)

        assert start.state.sequence == position
        assert restored == whole
        assert restored.digest() == whole.digest()


async def test_few_snapshots_are_kept(log: MemoryEventLog, store: MemorySnapshots) -> None:
    """Of the older ones neither manifest nor parts."""
    for position in range(1, 20):
        await write_snapshot(store, await folded(log, position), f"s{position}")

    assert len(store.known) == limits.SNAPSHOTS_KEPT
    assert {name for name, _ in store.parts} == {"s17", "s18", "s19"}


def altered(**values: object) -> Callable[[MemorySnapshots], None]:
    """Damage to the newest manifest."""

    def damage(store: MemorySnapshots) -> None:
        store.known[-1] = json.dumps({**json.loads(store.known[-1]), **values}).encode()

    return damage


def reworked(change: Callable[[bytes], bytes]) -> Callable[[MemorySnapshots], None]:
    """Damage to the newest snapshot's first part."""

    def damage(store: MemorySnapshots) -> None:
        store.parts["new", 0] = change(store.parts["new", 0])

    return damage


def unreadable(store: MemorySnapshots) -> None:
    store.known[-1] = b"{"


def incomplete(store: MemorySnapshots) -> None:
    del store.parts["new", 1]


DAMAGE = {
    "another release": altered(reducer="0" * 64),
    "another format": altered(format=2),
    "beyond the log's end": altered(sequence=END + 1),
    "off by one": altered(sequence=41),
    "of another log": altered(hash="0" * 64),
    "another digest": altered(digest="0" * 64),
    "another tree": altered(tree=["00" * 32]),
    "not hex": altered(tree=["zz"]),
    "an unknown field": altered(extra=1),
    "one part less": altered(parts=1),
    "a manifest that does not read": unreadable,
    "a part is gone": incomplete,
    "a part is cut": reworked(lambda data: data[:-9]),
    "a part is no zlib": reworked(lambda data: b"\0" * 40),
    "a part is another": reworked(lambda data: zlib.compress(b"\0" * 500)),
    "a part is huge": reworked(lambda data: zlib.compress(bytes(1 << 24))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_snapshot_in_doubt_is_passed_over(
    log: MemoryEventLog, store: MemorySnapshots, damage: Callable[[MemorySnapshots], None]
) -> None:
    """The one before it is taken; without one the log is replayed from record 1. The state is the same."""
    await write_snapshot(store, await folded(log, 20), "old")
    await write_snapshot(store, await folded(log, 40), "new")
    damage(store)

    assert (await latest_snapshot(store, log, END)).state.sequence == 20
    assert await restore(store, log) == await folded(log, END)
    del store.known[0]
    assert await restore(store, log) == await folded(log, END)


async def test_a_planted_snapshot_off_by_one_is_found(log: MemoryEventLog, store: MemorySnapshots) -> None:
    """A state that lacks its last record, under that record's number and hash: replay finds another digest."""
    before, after = await folded(log, 39), await folded(log, 40)
    planted = Replayed(before.state._replace(sequence=40), after.head_hash, after.tree)
    await write_snapshot(store, planted, "planted")

    try:
        restored = (await restore(store, log)).digest()
    except LogCorruptError:
        return
    assert restored != (await folded(log, END)).digest()


async def test_a_log_made_anew_is_not_continued(log: MemoryEventLog, store: MemorySnapshots) -> None:
    """A snapshot of the log that was there before is not of this one, however long it has grown."""
    await write_snapshot(store, await folded(log, 40), "s")
    other = [entry for entry, _ in History(SeededEntropy(8), job_tasks=5, at_once=2).entries(400)][:END]
    anew = MemoryEventLog([Stored(at, entry.subject, entry.data) for at, entry in enumerate(other, 1)])

    assert await restore(store, anew) == await folded(anew, END)
    assert await latest_snapshot(store, MemoryEventLog(), 0) == NOTHING


@dataclass
class Source:
    """What folds the log: moved on by the test."""

    folded: Replayed
    folded_bytes: int = 0

    @property
    def state(self) -> State:
        return self.folded.state


def snapshotter(store: MemorySnapshots, source: Any, *, leads: bool = False) -> Snapshotter:
    return Snapshotter(store, SeededEntropy(id(source)), lambda: source, lambda: leads, limits.SNAPSHOT_RECORDS)


async def test_a_snapshot_is_written_when_replay_would_take_long(
    log: MemoryEventLog, store: MemorySnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many records, or so many bytes; not before; not by two."""
    monkeypatch.setattr(limits, "SNAPSHOT_RECORDS", 10)
    monkeypatch.setattr(limits, "SNAPSHOT_LOG_BYTES", 1000)
    source = Source(await folded(log, 9))
    first, second = snapshotter(store, source), snapshotter(store, source)
    await first.look()
    assert store.known == []

    source.folded = await folded(log, 10)
    await first.look()
    await second.look()
    await first.look()
    assert len(store.known) == 1

    source.folded, source.folded_bytes = await folded(log, 11), 1000
    await second.look()
    await first.look()
    assert [json.loads(manifest)["sequence"] for manifest in store.known] == [10, 11]


async def test_what_a_start_replayed_counts(
    log: MemoryEventLog, store: MemorySnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start that folded much since the last snapshot, the next one is due at once."""
    await write_snapshot(store, await folded(log, 10), "old")
    restored = await restore(store, log)
    assert 0 < restored.folded_bytes < (await folded(log, END)).folded_bytes

    monkeypatch.setattr(limits, "SNAPSHOT_LOG_BYTES", restored.folded_bytes)
    await snapshotter(store, Source(restored, restored.folded_bytes)).look()
    assert [json.loads(manifest)["sequence"] for manifest in store.known] == [10, END]


class Broken(MemorySnapshots):
    """A store that refuses the third part, once."""

    async def put_part(self, name: str, number: int, data: bytes) -> None:
        if number == 2 and not self.known:
            self.known.append(b"{}")
            raise BrokerUnavailableError("the broker did not answer")
        await super().put_part(name, number, data)


async def test_a_snapshot_that_failed_is_tried_again_and_leaves_nothing(
    log: MemoryEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that no manifest names would push out snapshots that are whole."""
    monkeypatch.setattr(limits, "SNAPSHOT_PART_BYTES", 500)
    monkeypatch.setattr(limits, "SNAPSHOT_RECORDS", 10)
    store = Broken()
    writes = snapshotter(store, Source(await folded(log, END)))
    with pytest.raises(BrokerUnavailableError):
        await writes.look()
    assert store.parts == {}

    await writes.look()
    assert json.loads(store.known[-1])["sequence"] == END


async def test_a_leader_lets_standbys_go_first(
    log: MemoryEventLog, store: MemorySnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes one only where nobody else has for twice as long."""
    monkeypatch.setattr(limits, "SNAPSHOT_RECORDS", 10)
    source = Source(await folded(log, 15))
    leader = snapshotter(store, source, leads=True)
    await leader.look()
    assert store.known == []

    source.folded = await folded(log, 20)
    await leader.look()
    assert len(store.known) == 1


def test_the_code_that_folds_has_a_version(tmp_path: Path) -> None:
    """One changed byte is another version; where the sources are not there, there is none and no snapshot."""
    files = [tmp_path / "evolve.py", tmp_path / "model.py"]
    for path in files:
        path.write_text("x = 1\n", encoding="utf-8")
    version = version_of(files)
    files[0].write_text("x = 2\n", encoding="utf-8")

    assert len(version) == len(reducer_version()) == 64
    assert version_of(files) != version
    assert version_of([*files, tmp_path / "gone.py"]) == ""


def test_all_code_that_folds_is_in_the_version() -> None:
    """Else a snapshot of other bounds or rules would be taken for one of today's, and its state for the log's."""
    sources = {path.resolve().relative_to(ROOT).as_posix() for path in folding_sources()}
    known = {module.name: module for module in modules("coordinator", "hivefold")}
    imported = {name for module in known.values() if module.path in sources for name, _ in module.imports()}
    missing = {known[name].path for name in imported if name in known} - sources

    # Not the packages' own names, and the version that an error message tells.
    assert {path for path in missing if not path.endswith("__init__.py")} == {"hivefold/version.py"}


async def test_a_snapshot_is_never_partly_known(log: MemoryEventLog, store: MemorySnapshots) -> None:
    """A writer that dies before the manifest leaves nothing that a start would read."""
    await write_snapshot(store, await folded(log, 20), "old")
    await store.put_part("dead", 0, b"half a snapshot")

    assert (await latest_snapshot(store, log, END)).state.sequence == 20


def test_replayer_and_snapshot_agree_on_the_tree() -> None:
    """The fold of nothing has an empty tree."""
    assert Replayer().folded() == NOTHING
