"""The segments of the log on the broker: one stream each, of which the last takes records.

A segment ends with a record under CLOSE_SUBJECT, fenced as any other. Whoever appends next, the same leader or its
successor, first seals the stream and makes the next one, which begins right after: both acts may be repeated at any
time, by anyone, for what they do follows from the closing record alone. The first record of a segment is under
TERM_SUBJECT, so that every fence of the segment before is refused in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from hivefold.bus import api
from hivefold.bus.link import Link, NoRespondersError
from hivefold.errors import BrokerUnavailableError, ConfigError, LogCorruptError, LogFullError
from hivefold.limits import APPEND_BATCH_BYTES
from hivefold.log.naming import segment_number, stream_name
from hivefold.log.port import OpenSegment
from hivefold.log.stream import LogSettings, advice, sealed_stream, stream_faults, wanted_stream

_LEAST_BYTES: Final = 4 * APPEND_BATCH_BYTES
"""Room that the broker must have for a next segment before one is closed."""
_STREAMS: Final = 4096
"""Most streams of the account that are looked through."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the log that one stream holds. `last` is what it was when it was looked at; final once sealed."""

    number: int
    first: int
    last: int
    size_bytes: int
    max_bytes: int
    replicas: int
    sealed: bool

    @property
    def stream(self) -> str:
        """The stream's name."""
        return stream_name(self.number)


class Segments:
    """What is known of the segments; looked at anew when that turns out to be old."""

    def __init__(self, link: Link, settings: LogSettings) -> None:
        self._link = link
        self._settings = settings
        self._found: tuple[Segment, ...] = ()
        self._strays: list[str] = []
        """Empty streams below the last: made too late by a leader that had been replaced."""

    @property
    def all(self) -> Sequence[Segment]:
        """All that are on the broker, in order; never empty."""
        return self._found

    @property
    def last(self) -> Segment:
        """The one that takes records, unless it is sealed: then the next append makes the next."""
        return self._found[-1]

    def holding(self, sequence: int) -> Segment | None:
        """The one that holds a position, or would; None where it is no longer on the broker."""
        for segment in reversed(self._found):
            if segment.first <= sequence:
                return segment if segment is self.last or sequence <= segment.last else None
        return None

    def stored(self, up_to: int, size_bytes: int) -> None:
        """Notes what was appended to the last one."""
        last = self.last
        grown = replace(last, last=max(up_to, last.last), size_bytes=last.size_bytes + size_bytes)
        self._found = (*self._found[:-1], grown)

    @property
    def room_bytes(self) -> int:
        """How many bytes the last one still takes."""
        return self.last.max_bytes - self.last.size_bytes

    @property
    def open_segment(self) -> OpenSegment:
        """As the port's. Full only where the broker has room for a next one: else this one goes on to its limit."""
        last, settings = self.last, self._settings
        if last.sealed:
            return OpenSegment(last.number + 1, full=False)
        reached = (
            last.last - last.first + 1 >= settings.segment_max_records or last.size_bytes >= settings.segment_max_bytes
        )
        return OpenSegment(last.number, reached and self._left_bytes() >= _LEAST_BYTES)

    async def prepare(self) -> None:
        """Makes the first where there is none; lets the last grow where the settings say so.

        Raises ConfigError that names each setting to change, LogCorruptError when the beginning is gone,
        BrokerUnavailableError.
        """
        try:
            infos = await self._list()
            if not infos:
                infos = [await api.call(self._link, f"STREAM.CREATE.{stream_name(1)}", wanted_stream(self._settings))]
            for info in infos:
                if faults := stream_faults(info["config"], self._settings):
                    raise ConfigError(f"stream {info['config']['name']} cannot hold the log: {'; '.join(faults)}")
            self._take(infos)
            await self._grow(infos[-1]["config"])
        except NoRespondersError as error:
            raise api.without_jetstream(error) from error
        except api.ApiError as error:
            raise ConfigError(advice(error, self._settings)) from error

    async def refresh(self) -> None:
        """Looks again. Raises BrokerUnavailableError, LogCorruptError."""
        try:
            infos = await self._list()
        except api.ApiError as error:
            raise _not_listed(error) from error
        if not infos:
            raise LogCorruptError("the log is gone: restore its streams from a copy", position=1)
        self._take(infos)

    async def roll(self, closed: int) -> None:
        """Makes sure that the segment which record `closed` closed is sealed and the next one is there.

        Raises LogFullError when there is no room for it, BrokerUnavailableError: the same may be asked again.
        """
        await self.refresh()
        last = self.last
        if last.first > closed:
            return
        try:
            for stray in self._strays:
                await api.call(self._link, f"STREAM.DELETE.{stray}")
            if not last.sealed:
                info = await api.call(self._link, f"STREAM.INFO.{last.stream}")
                await api.call(self._link, f"STREAM.UPDATE.{last.stream}", sealed_stream(info["config"]))
                await self.refresh()
            settings = replace(self._settings, max_bytes=max(self._left_bytes(), _LEAST_BYTES))
            wanted = wanted_stream(settings, number=last.number + 1, first=closed + 1)
            await api.call(self._link, f"STREAM.CREATE.{wanted['name']}", wanted)
        except api.ApiError as error:
            if error.code in api.STORAGE_SHORT:
                raise LogFullError(
                    "the log is full: there is no room for its next segment; free the disk of the NATS server"
                ) from None
            if error.code != api.STREAM_EXISTS:
                raise BrokerUnavailableError(f"the log's next segment was not made: {error}; try again") from error
        await self.refresh()

    async def remove(self, segment: Segment) -> None:
        """Deletes the stream of a sealed segment that is not the last; lets the last one grow by what that frees."""
        assert segment.sealed, "only what is closed may go"
        assert segment != self.last, "the last one is where the log goes on"
        try:
            await api.call(self._link, f"STREAM.DELETE.{segment.stream}")
            await self.refresh()
            await self._grow((await api.call(self._link, f"STREAM.INFO.{self.last.stream}"))["config"])
        except api.ApiError as error:
            raise BrokerUnavailableError(f"segment {segment.number} was not removed: {error}; tried again") from error

    def _left_bytes(self) -> int:
        """What log_max_bytes leaves for a next segment."""
        return self._settings.max_bytes - sum(segment.size_bytes for segment in self._found)

    async def _grow(self, config: dict[str, Any]) -> None:
        last = self.last
        limit = self._left_bytes() + last.size_bytes
        if not last.sealed and -1 < config["max_bytes"] < limit:
            made = await api.call(self._link, f"STREAM.UPDATE.{last.stream}", {**config, "max_bytes": limit})
            self._found = (*self._found[:-1], replace(last, max_bytes=made["config"]["max_bytes"]))

    async def look(self) -> Sequence[Segment]:
        """As they are on the broker now; what is known here stays as it is. Raises BrokerUnavailableError."""
        try:
            return [segment_of(info) for info in await list_segments(self._link)]
        except api.ApiError as error:
            raise _not_listed(error) from error

    async def _list(self) -> list[dict[str, Any]]:
        """The streams that hold segments, in order, without the strays."""
        infos, self._strays = _parted(await list_streams(self._link))
        return infos

    def _take(self, infos: Sequence[dict[str, Any]]) -> None:
        segments = tuple(map(segment_of, infos))
        if segments[0].number == 1 and segments[0].first > 1:
            raise LogCorruptError("the log does not begin at record 1: restore stream HF_LOG from a copy", position=1)
        for before, after in pairwise(segments):
            if before.number + 1 == after.number and before.last + 1 != after.first:
                raise LogCorruptError(
                    f"segment {before.number} ends at record {before.last}, the next begins at {after.first}",
                    position=min(before.last + 1, after.first),
                )
        self._found = segments


async def list_streams(link: Link) -> list[dict[str, Any]]:
    """The streams of an account, as JetStream describes them. Raises ApiError, BrokerUnavailableError."""
    found: list[dict[str, Any]] = []
    total = 1
    while len(found) < min(total, _STREAMS):
        page = await api.call(link, "STREAM.LIST", {"offset": len(found)})
        streams = page.get("streams") or []
        if not streams:
            break
        found += streams
        total = page["total"]
    return found


async def list_segments(link: Link) -> list[dict[str, Any]]:
    """The streams that hold segments, in order, without the strays. Raises as list_streams."""
    return _parted(await list_streams(link))[0]


def _parted(infos: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The streams that hold segments, in order; and the names of the strays among them."""
    found = {number: info for info in infos if (number := segment_number(info["config"]["name"]))}
    strays = [
        number
        for number, info in found.items()
        if number < max(found) and not info["state"]["messages"] and not info["config"].get("sealed")
    ]
    return [found[number] for number in sorted(found) if number not in strays], [stream_name(each) for each in strays]


def _not_listed(error: api.ApiError) -> BrokerUnavailableError:
    return BrokerUnavailableError(f"the log's segments cannot be listed: {error}; check the server")


def segment_of(info: dict[str, Any]) -> Segment:
    """The segment that a stream holds, from its description."""
    config, state = info["config"], info["state"]
    number = segment_number(config["name"])
    first = int(state["first_seq"]) or int(config.get("first_seq") or 1)
    return Segment(
        number=number,
        first=first,
        last=int(state["last_seq"]),
        size_bytes=int(state["bytes"]),
        max_bytes=int(config["max_bytes"]) if config["max_bytes"] > -1 else 1 << 62,
        replicas=int(config["num_replicas"]),
        sealed=bool(config.get("sealed")),
    )
