"""The list of jobs that the state no longer has: a SQLite file beside the coordinator, derived from the log.

A cache: it follows the log from where it stands, and is made anew where it is missing, unreadable or of another log.
Until it has come to the end of what the state has let go, lists say that they are incomplete.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import structlog

from coordinator.core.model import Job, State
from coordinator.derive import Decided, Folded, Scope
from coordinator.followers import Followed
from coordinator.history import ended_jobs, hash_at
from coordinator.views import job_view
from coordinator.watch import follow
from coordinator.wire.values import job_model_to_proto
from hivefold import limits
from hivefold.errors import HivefoldError, LogCorruptError, NotLeaderError
from hivefold.ids import ModelRef
from hivefold.log.port import EventLog
from hivefold.v1 import job_pb2

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_FORMAT: Final = 1
_SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS jobs (
        create_sequence INTEGER PRIMARY KEY, end_sequence INTEGER, state INTEGER, labels TEXT, model TEXT, view BLOB);
    CREATE TABLE IF NOT EXISTS place (
        id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER, position INTEGER, hash BLOB, resume INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Jobs submitted before a position, in one of these states (any, if none), with all these labels."""

    before: int
    states: frozenset[int]
    labels: Sequence[tuple[str, str]]
    count: int


@dataclass(frozen=True, slots=True)
class _Place:
    """How far the index goes, the hash of that record, and where folding begins to know the jobs open there."""

    position: int = 0
    hash: bytes = b""
    resume: int = 0


class _Row(NamedTuple):
    """An ended job: the columns of the table."""

    create_sequence: int
    end_sequence: int
    state: int
    labels: str
    model: str
    view: bytes

    def is_wanted(self, wanted: Wanted, ended_by: int) -> bool:
        return (
            self.create_sequence < wanted.before
            and self.end_sequence <= ended_by
            and (not wanted.states or self.state in wanted.states)
            and all(_label(pair) in self.labels for pair in wanted.labels)
        )

    def job(self, state: State) -> job_pb2.Job:
        view = job_pb2.Job.FromString(self.view)
        model = state.models.get(ModelRef(self.model))
        if model is not None:
            view.model.CopyFrom(job_model_to_proto(model))
        return view


class JobIndex:
    """Every job that has ended, as it ended. `run` MUST be running for it to go on."""

    def __init__(self, path: Path, log: EventLog, source: Callable[[], Followed]) -> None:
        self._path = path
        self._log = log
        self._source = source
        self._database: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()
        self._rows: list[_Row] = []
        self._last: Decided | None = None
        self._position = 0
        self._flushed_s = 0.0

    async def run(self) -> None:
        """Follows the log until it is cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except NotLeaderError:
                    pass  # who followed leads now, or the other way round: the next look follows that
                except (HivefoldError, sqlite3.Error, OSError) as error:
                    _log.info("index of ended jobs waits", why=str(error), position=self._position)
                await asyncio.sleep(limits.INDEX_RETRY_S)
        finally:
            with suppress(HivefoldError, sqlite3.Error, OSError):
                await self._flush()
            self._close()

    async def page(self, wanted: Wanted, state: State) -> tuple[list[tuple[int, job_pb2.Job]], bool]:
        """Jobs that `state` has let go, newest first, with their submits' positions; and whether none is missing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.INDEX_WAIT_S):
                while self._position < state.retired_sequence:
                    await asyncio.sleep(limits.INDEX_WAIT_S / 20)
        complete = self._position >= state.retired_sequence
        rows = {row.create_sequence: row for row in self._rows if row.is_wanted(wanted, state.retired_sequence)}
        try:
            stored = await self._in_thread(lambda database: _select(database, wanted, state.retired_sequence))
        except (sqlite3.Error, OSError) as error:
            _log.warning("index of ended jobs not read", why=str(error))
            stored, complete = [], not state.retired_sequence
        rows |= {row.create_sequence: row for row in stored}
        for job in state.jobs.values():
            rows.pop(job.create_sequence, None)
        newest = sorted(rows, reverse=True)[: wanted.count]
        return [(sequence, rows[sequence].job(state)) for sequence in newest], complete

    async def _follow(self) -> None:
        source = self._source()
        place = await self._begin(source.state.sequence)
        start = Folded(place.resume, 0, (), State(models=source.state.models, removed=source.state.removed))
        self._position, self._last = place.position, None
        loop = asyncio.get_running_loop()
        async with aclosing(
            follow(source, self._log, start, Scope(frozenset(), every_job=True), place.position)
        ) as all_:
            slice_s = loop.time()
            async for decided in all_:
                self._take(decided)
                if len(self._rows) >= limits.INDEX_ROWS or loop.time() - self._flushed_s >= limits.INDEX_FLUSH_S:
                    await self._flush()
                if source.state.sequence - decided.sequence > limits.FOLLOWER_QUEUE:
                    # A long way to go: the fleet comes first, three quarters of the time.
                    await asyncio.sleep(3 * min(loop.time() - slice_s, 0.1))
                slice_s = loop.time()

    def _take(self, decided: Decided) -> None:
        self._rows += map(_row, ended_jobs(decided))
        self._last, self._position = decided, decided.sequence

    async def _begin(self, end: int) -> _Place:
        """Opens the file and says how far it goes; it begins anew where it is not of this log."""
        self._rows.clear()
        place = await self._in_thread(_place)
        if place.position and not await self._is_of_this_log(place, end):
            _log.warning("index of ended jobs is made anew", position=place.position, end=end)
            await self._in_thread(_wipe)
            place = _Place()
        return place

    async def _is_of_this_log(self, place: _Place, end: int) -> bool:
        if place.position > end:
            return False
        try:
            return await hash_at(self._log, place.position) == place.hash
        except LogCorruptError:
            return False

    async def _flush(self) -> None:
        """Stores what was taken up; called by `run` alone. What is being stored is listed from memory meanwhile."""
        last, rows = self._last, tuple(self._rows)
        if last is None:
            return
        resume = min(last.state.open_jobs.values(), default=last.sequence + 1) - 1
        place = _Place(last.sequence, await hash_at(self._log, last.sequence), resume)
        await self._in_thread(lambda database: _store(database, rows, place))
        del self._rows[: len(rows)]
        self._last, self._flushed_s = None, asyncio.get_running_loop().time()

    async def _in_thread(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        async with self._lock:
            return await asyncio.to_thread(lambda: work(self._opened()))

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                self._database = _open(self._path)
            except sqlite3.DatabaseError:
                for path in self._path.parent.glob(f"{self._path.name}*"):
                    path.unlink()
                self._database = _open(self._path)
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _place(database: sqlite3.Connection) -> _Place:
    row = database.execute("SELECT format, position, hash, resume FROM place").fetchone()
    if row is None or row[0] != _FORMAT:
        _wipe(database)
        return _Place()
    return _Place(*row[1:])


def _wipe(database: sqlite3.Connection) -> None:
    with database:
        database.execute("DELETE FROM jobs")
        database.execute("DELETE FROM place")


def _store(database: sqlite3.Connection, rows: Sequence[_Row], place: _Place) -> None:
    with database:
        database.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", rows)
        values = (_FORMAT, place.position, place.hash, place.resume)
        database.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?, ?, ?)", values)


def _select(database: sqlite3.Connection, wanted: Wanted, ended_by: int) -> list[_Row]:
    where = ["create_sequence < ?", "end_sequence <= ?", *["instr(labels, ?)"] * len(wanted.labels)]
    values: list[object] = [wanted.before, ended_by, *(_label(pair) for pair in wanted.labels)]
    if wanted.states:
        where.append(f"state IN ({','.join('?' * len(wanted.states))})")
        values += sorted(wanted.states)
    # Those that ended in the record up to which all have gone may be in the state still.
    values.append(wanted.count + limits.RECENT_JOBS)
    # No text of others is in the query.
    query = f"SELECT * FROM jobs WHERE {' AND '.join(where)} ORDER BY create_sequence DESC LIMIT ?"  # noqa: S608
    return [_Row(*row) for row in database.execute(query, values)]


def _row(job: Job) -> _Row:
    view = job_view(job)
    # The same for thousands of jobs, and never forgotten.
    view.ClearField("model")
    labels = "".join(_label(pair) for pair in job.spec.labels)
    model = job.model.ref if job.model else ""
    return _Row(job.create_sequence, job.sequence, view.state, labels, model, view.SerializeToString())


def _label(pair: tuple[str, str]) -> str:
    return f" {pair[0].encode().hex()}={pair[1].encode().hex()} "
