"""The state as bytes, for snapshots only: read by the same release that wrote it, or not at all.

A state is a run of frames, each small: reading and writing never hold everything up for long. The first frame has
the fields that are no maps; every other one some entries of a map of the state, or of a map of one of its jobs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from types import GenericAlias
from typing import Any, Final, NamedTuple, cast, get_args, get_origin, get_type_hints

import msgspec
from immutables import Map

from coordinator.core.model import Job, Model, State
from coordinator.wire.values import job_spec_from_proto, job_spec_to_proto
from hivefold.errors import HivefoldError
from hivefold.ids import JobId
from hivefold.limits import SNAPSHOT_FRAME_ENTRIES
from hivefold.v1 import job_pb2

_LENGTH: Final = struct.Struct(">I")


class SnapshotInvalidError(HivefoldError):
    """A snapshot does not read as a state: it is passed over, and the log is replayed from further back."""


class _Frame(NamedTuple):
    """Where entries belong: a field of the state, or of the job that is named; and the entries."""

    field: str
    job_id: str
    entries: msgspec.Raw


def _is_map(hint: object) -> bool:
    return get_origin(hint) is Map


_FIELDS: Final = get_type_hints(State)
_JOB_FIELDS: Final = get_type_hints(Job)
_MAPS: Final = tuple(name for name, hint in _FIELDS.items() if _is_map(hint))
_PLAIN: Final = tuple(name for name, hint in _FIELDS.items() if not _is_map(hint))
_JOB_MAPS: Final = tuple(name for name, hint in _JOB_FIELDS.items() if _is_map(hint))


def _packed_type(hint: Any) -> Any:
    """What stands for a value of this type in a frame."""
    if hint is Job:
        packed = {**_JOB_FIELDS, "spec": bytes}
        return NamedTuple("_PackedJob", [(name, packed[name]) for name in Job._fields if name not in _JOB_MAPS])
    return hint


def _entries_decoder(hint: Any) -> msgspec.msgpack.Decoder[Any]:
    key, value = get_args(hint)
    pair = GenericAlias(tuple, (key, _packed_type(value)))
    return msgspec.msgpack.Decoder(GenericAlias(list, (pair,)))


_ENCODE: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode
_FRAMES: Final = msgspec.msgpack.Decoder(_Frame)
_PLAIN_DECODER: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(
    NamedTuple("_Plain", [(name, _FIELDS[name]) for name in _PLAIN])
)
_DECODERS: Final = {name: _entries_decoder(_FIELDS[name]) for name in _MAPS}
_JOB_DECODERS: Final = {name: _entries_decoder(_JOB_FIELDS[name]) for name in _JOB_MAPS}


def encode_state(state: State) -> Iterator[bytes]:
    """The state as length-prefixed frames, in the order in which they are read."""
    yield _frame("", "", [getattr(state, name) for name in _PLAIN])
    for name in _MAPS:
        entries = getattr(state, name)
        if name != "jobs":
            yield from _slices(name, "", entries)
            continue
        for job_id, job in entries.items():
            yield _frame(name, "", [(job_id, _pack(job))])
            for part in _JOB_MAPS:
                yield from _slices(part, job_id, getattr(job, part))


def _slices(name: str, job_id: str, entries: Map[Any, Any]) -> Iterator[bytes]:
    items = iter(entries.items())
    while some := list(islice(items, SNAPSHOT_FRAME_ENTRIES)):
        yield _frame(name, job_id, some)


def _frame(name: str, job_id: str, entries: object) -> bytes:
    data = _ENCODE((name, job_id, entries))
    return _LENGTH.pack(len(data)) + data


def _pack(job: Job) -> list[object]:
    """A job without its maps; its spec as in the log, for a kind says of itself only there which it is."""
    packed = job._replace(spec=cast(Any, job_spec_to_proto(job.spec).SerializeToString()))
    return [value for name, value in zip(Job._fields, packed, strict=True) if name not in _JOB_MAPS]


class StateDecoder:
    """Puts a state together again. Every method raises SnapshotInvalidError."""

    def __init__(self) -> None:
        self._rest = b""
        self._plain: dict[str, Any] | None = None
        self._maps = {name: Map[Any, Any]().mutate() for name in _MAPS}
        self._jobs: dict[str, Job] = {}
        self._job_maps: dict[tuple[str, str], Any] = {}
        self._models: dict[Model, Model] = {}

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, cut anywhere."""
        data = self._rest + data
        at = 0
        while at + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            try:
                self._take(_FRAMES.decode(memoryview(data)[at + _LENGTH.size : end]))
            except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
                raise SnapshotInvalidError(f"a frame does not read as part of a state: {error!r}") from error
            at = end
        self._rest = data[at:]

    def state(self) -> State:
        """The state, once all was fed."""
        if self._rest or self._plain is None:
            raise SnapshotInvalidError("the snapshot ends in the middle of a frame")
        by_job: dict[str, dict[str, Any]] = {}
        for (job_id, name), draft in self._job_maps.items():
            by_job.setdefault(job_id, {})[name] = draft.finish()
        try:
            for job_id, maps in by_job.items():
                self._jobs[job_id] = self._jobs[job_id]._replace(**maps)
        except KeyError as error:
            raise SnapshotInvalidError(f"tasks of a job that is not there: {error}") from error
        values: dict[str, Any] = {name: draft.finish() for name, draft in self._maps.items()}
        return State(**{**self._plain, **values, "jobs": Map(self._jobs)})

    def _take(self, frame: _Frame) -> None:
        if not frame.field:
            self._plain = _PLAIN_DECODER.decode(frame.entries)._asdict()
        elif frame.job_id:
            draft = self._job_maps.get((frame.job_id, frame.field))
            if draft is None:
                draft = self._job_maps[frame.job_id, frame.field] = Map[Any, Any]().mutate()
            for key, value in _JOB_DECODERS[frame.field].decode(frame.entries):
                draft[key] = value
        elif frame.field == "jobs":
            for job_id, packed in _DECODERS["jobs"].decode(frame.entries):
                self._jobs[job_id] = self._unpacked(job_id, packed._asdict())
        else:
            draft = self._maps[frame.field]
            for key, value in _DECODERS[frame.field].decode(frame.entries):
                draft[key] = value

    def _unpacked(self, job_id: JobId, packed: dict[str, Any]) -> Job:
        if packed["job_id"] != job_id:
            raise SnapshotInvalidError(f"job {packed['job_id']} is stored as {job_id}")
        if packed["model"] is not None:
            # One model in memory, however many jobs ran it.
            packed["model"] = self._models.setdefault(packed["model"], packed["model"])
        return Job(**{**packed, "spec": job_spec_from_proto(job_pb2.JobSpec.FromString(packed["spec"]))})
