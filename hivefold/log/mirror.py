"""The mirror of the log in the account AUDIT: what is stored there, nobody who holds the log's account can change.

A segment's mirror has the name of its stream. JetStream fills it, also from a segment that was closed long ago.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hivefold.bus import api
from hivefold.bus.link import Link, NoRespondersError
from hivefold.bus.streams import CHECKPOINTS, StreamSettings
from hivefold.errors import BrokerUnavailableError, ConfigError, LogCorruptError
from hivefold.log.naming import segment_number, stream_name
from hivefold.log.port import Head, Stored
from hivefold.log.reading import PageReader
from hivefold.log.segments import Segment, list_streams, segment_of
from hivefold.server.accounts import CHECKPOINTS_API, MIRROR_API, mirror_subject


class Mirrors:
    """Makes mirrors and looks at them, over a connection to the account AUDIT; whoever leads does so."""

    def __init__(self, link: Link, *, replicas: int = 1) -> None:
        self._link = link
        self._replicas = replicas
        self._made: set[str] = set()

    async def ensure(self, segments: Iterable[int]) -> None:
        """Makes the mirrors of these segments, and of the checkpoints, where they are missing.

        A mirror keeps what it has when the log is cut, rewritten or deleted: it is what the log is compared with.
        Raises ConfigError, BrokerUnavailableError.
        """
        for config in (*(segment_mirror(number) for number in segments), checkpoints_mirror()):
            if config["name"] not in self._made:
                await self._make({**config, "num_replicas": self._replicas})
                self._made.add(config["name"])

    async def all(self) -> Sequence[Segment]:
        """The mirrors of segments with what they hold so far, in order; empty ones too. Raises as `ensure`."""
        return await _mirrored(self._link)

    async def _make(self, config: dict[str, Any]) -> None:
        name = config["name"]
        try:
            try:
                await api.call(self._link, f"STREAM.CREATE.{name}", config)
            except api.ApiError as error:
                if error.code != api.STREAM_EXISTS:
                    raise
                found = await api.call(self._link, f"STREAM.INFO.{name}")
                if (found["config"].get("mirror") or {}).get("name") != name:
                    raise ConfigError(
                        f"stream {name} of the account for the mirror is no mirror of the log: "
                        "rename it, or give hivefold an account of its own"
                    ) from None
        except NoRespondersError as error:
            raise api.without_jetstream(error) from None
        except api.ApiError as error:
            raise ConfigError(
                f"the mirror {name} cannot be made: {error.description}; check the account's limits and what it imports"
            ) from None


class MirroredLog:
    """The log as its mirror has it, for readers (ReadableLog); the link stays the caller's to close."""

    def __init__(self, link: Link, pages: PageReader) -> None:
        self._link = link
        self._pages = pages
        self._segments: Sequence[Segment] = ()

    @classmethod
    async def open(cls, link: Link) -> MirroredLog:
        """The mirror in the account of `link`. Raises BrokerUnavailableError, LogCorruptError."""
        log = cls(link, await PageReader.open(link))
        await log.head()
        return log

    @property
    def first_sequence(self) -> int:
        """Position of its first record: 1 unless mirrors of the first segments were removed."""
        return self._segments[0].first if self._segments else 1

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments that it holds, in order, as far as is known."""
        return self._segments

    async def head(self) -> Head:
        """The last record that was mirrored; the term's is not looked up.

        Raises LogCorruptError with the position where a segment is not, or not yet, mirrored to its end.
        """
        segments = [segment for segment in await _mirrored(self._link) if segment.last >= segment.first]
        for before, after in pairwise(segments):
            if before.last + 1 != after.first:
                raise LogCorruptError(
                    f"the mirror has no record {before.last + 1}: {before.stream} ends before {after.stream} begins; "
                    "wait until it has caught up, or look at its stream",
                    position=before.last + 1,
                )
        self._segments = segments
        return Head(segments[-1].last if segments else 0, 0)

    async def read(self, *, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """As EventLog.read."""
        position = after + 1
        while position <= up_to:
            segment = next((each for each in self._segments if each.first <= position <= each.last), None)
            if segment is None:
                raise LogCorruptError(f"record {position} is not in the mirror", position=position)
            async for page in self._pages.read(segment.stream, position - 1, min(up_to, segment.last)):
                position = page[-1].sequence + 1
                yield page

    async def close(self) -> None:
        """Nothing to do."""


def segment_mirror(number: int) -> dict[str, Any]:
    """The mirror of a segment as JetStream takes it."""
    return _mirror(stream_name(number), MIRROR_API)


def checkpoints_mirror() -> dict[str, Any]:
    """The mirror of the checkpoints: as far back as they are kept themselves."""
    return {**_mirror(CHECKPOINTS, CHECKPOINTS_API), "max_bytes": StreamSettings().checkpoints_max_bytes}


def _mirror(stream: str, source_api: str) -> dict[str, Any]:
    return {
        "name": stream,
        "storage": "file",
        "retention": "limits",
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
        "mirror": {"name": stream, "external": {"api": source_api, "deliver": mirror_subject(stream)}},
    }


async def _mirrored(link: Link) -> Sequence[Segment]:
    try:
        infos = await list_streams(link)
    except NoRespondersError as error:
        raise api.without_jetstream(error) from None
    except api.ApiError as error:
        raise BrokerUnavailableError(f"the mirrors cannot be listed: {error}; check the server") from error
    found = {segment_number(info["config"]["name"]): info for info in infos}
    return [_held(info) for number, info in sorted(found.items()) if number]


def _held(info: dict[str, Any]) -> Segment:
    """An empty mirror ends before it begins: where that is, only its segment knows."""
    segment = segment_of(info)
    return segment if info["state"]["messages"] else replace(segment, first=1, last=0)
