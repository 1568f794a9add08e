"""Puts one segment of the log back on the broker from a copy, where its stream is damaged or gone.

Nobody else may write meanwhile. Two streams cannot take the log's subjects at once, so the last segment lets go of
them while an older one is written, and gets them back at the end. All of it may be repeated after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hivefold.bus import api
from hivefold.bus.batch import Outgoing, store_batch
from hivefold.bus.link import Link, NoRespondersError
from hivefold.errors import BrokerUnavailableError, ConflictError, LogCorruptError, Reason
from hivefold.log.chain import GENESIS_HASH
from hivefold.log.naming import stream_name
from hivefold.log.port import ReadableLog
from hivefold.log.reading import PageReader
from hivefold.log.restoring import batches
from hivefold.log.segments import Segment, list_segments, segment_of
from hivefold.log.stream import LogSettings, sealed_stream, wanted_stream
from hivefold.proof.verifier import Beginning, LogVerifier
from hivefold.v1.record_pb2 import Record

_SUBJECTS: Final = ("log.>",)


@dataclass(frozen=True, slots=True)
class Span:
    """The records of a segment, by the segments beside it on the broker and by what the copy holds."""

    number: int
    first: int
    last: int


async def restore_segment(
    link: Link,
    settings: LogSettings,
    source: ReadableLog,
    held: Span,
    on_progress: Callable[[int, int], None],
) -> Span:
    """Writes segment `held.number` anew from `source`, which holds the records `held.first` to `held.last`.

    What the broker has of the segment is deleted, once the copy was read whole and found to fit to the segments
    beside it. `link` is a connection to the account CORE. `on_progress` gets records done and records in all.
    Raises LogCorruptError where the copy is not whole, ConflictError where it does not fit, BrokerUnavailableError.
    """
    try:
        infos = {segment_of(info).number: info for info in await list_segments(link)}
        segments = {number: segment_of(info) for number, info in infos.items()}
        span = _span(segments, held)
        await _check(link, source, segments, span)
        await _park(link, infos, span.number)
        await _write(link, settings, source, span, last=max(segments, default=0) <= span.number, report=on_progress)
        await _unpark(link)
    except NoRespondersError as error:
        raise api.without_jetstream(error) from error
    except api.ApiError as error:
        raise BrokerUnavailableError(f"segment {held.number} was not put back: {error}; do it again") from error
    return span


def _span(segments: Mapping[int, Segment], held: Span) -> Span:
    """What the segment has to hold. Raises ConflictError where the copy does not."""
    number = held.number
    before, there, after = (segments.get(each) for each in (number - 1, number, number + 1))
    first = before.last + 1 if before is not None else 1 if number == 1 else held.first
    last = after.first - 1 if after is not None else held.last
    if not held.first <= first <= last <= held.last:
        raise ConflictError(
            f"segment {number} has records {first} to {last}, the copy {held.first} to {held.last}: it is of another",
            reason=Reason.LOG_CORRUPT,
        )
    if there is not None and after is None and there.last > last:
        raise ConflictError(
            f"the broker has records up to {there.last} in segment {number}, the copy up to {last}: the rest would be "
            "lost; delete the stream yourself if that is meant",
            reason=Reason.LOG_CORRUPT,
        )
    return Span(number, first, last)


async def _check(link: Link, source: ReadableLog, segments: Mapping[int, Segment], span: Span) -> None:
    """Reads the copy whole: each record, its links, and those to the segments beside it."""
    previous = await _hash_before(link, segments.get(span.number - 1), source, span.first)
    verifier = LogVerifier(Beginning(span.first, previous))
    async for page in source.read(after=span.first - 1, up_to=span.last):
        for stored in page:
            verifier.record(stored)
    after = segments.get(span.number + 1)
    if after is not None and await _claimed(link, after) != verifier.result().head:
        raise LogCorruptError(f"record {after.first} does not follow from the copy's", position=span.last)


async def _hash_before(link: Link, before: Segment | None, source: ReadableLog, first: int) -> bytes:
    """The hash of the record before the segment: as the broker's segment before it has it, else as the copy says."""
    if first == 1:
        return GENESIS_HASH
    if before is None:
        async for page in source.read(after=first - 1, up_to=first):
            return bytes(Record.FromString(page[0].data).previous_hash)
    assert before is not None, "the copy holds the first record"
    from hivefold.log.chain import record_hash

    pages = await PageReader.open(link)
    async for page in pages.read(before.stream, before.last - 1, before.last):
        return record_hash(page[0].sequence, page[0].subject, page[0].data)
    raise LogCorruptError(f"record {before.last} is missing from the log", position=before.last)


async def _claimed(link: Link, after: Segment) -> bytes:
    """What the first record of a segment says of the one before it."""
    pages = await PageReader.open(link)
    async for page in pages.read(after.stream, after.first - 1, after.first):
        return bytes(Record.FromString(page[0].data).previous_hash)
    raise LogCorruptError(f"record {after.first} is missing from the log", position=after.first)


async def _park(link: Link, infos: Mapping[int, dict[str, Any]], number: int) -> None:
    """Makes room: the damaged stream goes, and the last one lets go of the log's subjects."""
    if number in infos:
        await api.call(link, f"STREAM.DELETE.{stream_name(number)}")
    for other, info in infos.items():
        config = info["config"]
        if other != number and config["subjects"] == list(_SUBJECTS):
            await api.call(
                link, f"STREAM.UPDATE.{config['name']}", {**config, "subjects": [f"parked.{config['name']}"]}
            )


async def _unpark(link: Link) -> None:
    for info in await list_segments(link):
        config = info["config"]
        if config["subjects"] == [f"parked.{config['name']}"]:
            await api.call(link, f"STREAM.UPDATE.{config['name']}", {**config, "subjects": list(_SUBJECTS)})


async def _write(
    link: Link,
    settings: LogSettings,
    source: ReadableLog,
    span: Span,
    *,
    last: bool,
    report: Callable[[int, int], None],
) -> None:
    """Makes the stream and fills it; where it is not the last, seals it."""
    wanted = wanted_stream(settings, number=span.number, first=span.first)
    if not last:
        wanted["max_bytes"] = -1  # it never grows
    made = await api.call(link, f"STREAM.CREATE.{wanted['name']}", wanted)
    position = span.first - 1
    async for page in source.read(after=position, up_to=span.last):
        for batch in batches(page):
            tie = b"Nats-Expected-Last-Sequence: %d\r\n" % position
            messages = [Outgoing(stored.subject, stored.data, b"" if at else tie) for at, stored in enumerate(batch)]
            stored_up_to = await store_batch(link, messages)
            position = batch[-1].sequence
            assert stored_up_to == position, "records keep their positions"
            report(position - span.first + 1, span.last - span.first + 1)
    if not last:
        await api.call(link, f"STREAM.UPDATE.{wanted['name']}", sealed_stream(made["config"]))
