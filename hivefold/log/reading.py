"""Reads the log in pages: straight from a replica where it can, from the leader where it must."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Final

from hivefold.bus import api, frames
from hivefold.bus.link import Link
from hivefold.errors import BrokerUnavailableError, LogCorruptError
from hivefold.limits import READ_PAGE_BYTES, READ_PAGE_RECORDS, READ_TIMEOUT_S, READ_TRIES
from hivefold.log.port import Stored

_SEQUENCE: Final = b"\r\nNats-Sequence: "
_SUBJECT: Final = b"\r\nNats-Subject: "
_CRLF: Final = b"\r\n"


async def leader_record(link: Link, stream: str, sequence: int) -> Stored | None:
    """The record at `sequence` as the stream's leader has it. Raises BrokerUnavailableError."""
    try:
        answer = await api.call(link, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    except api.ApiError as error:
        if error.code in {api.NO_MESSAGE, api.STREAM_MISSING}:
            return None
        raise BrokerUnavailableError(f"NATS cannot read record {sequence}: {error}") from error
    message = answer["message"]
    return Stored(int(message["seq"]), message["subject"], base64.b64decode(message.get("data", "")))


class _Page:
    """Collects the answers to one batched direct get: contiguous records from `first` on, nothing else."""

    def __init__(self, first: int) -> None:
        self.records: list[Stored] = []
        self.answered = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = first

    def take(self, headers: bytes, data: bytes) -> None:
        """One message of the answer; a status line ends it."""
        at = headers.find(_SEQUENCE)
        if at < 0:
            self.answered = True
            self.interrupt()
            return
        at += len(_SEQUENCE)
        if int(headers[at : headers.find(_CRLF, at)]) != self._next:
            return
        at = headers.find(_SUBJECT) + len(_SUBJECT)
        self.records.append(Stored(self._next, headers[at : headers.find(_CRLF, at)].decode(), data))
        self._next += 1

    def interrupt(self) -> None:
        """No more will come."""
        if not self.done.done():
            self.done.set_result(None)


class PageReader:
    """Batched direct gets over one subscription; a page is on its way while the one before is used."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inbox = link.new_inbox()
        self._pages: dict[bytes, _Page] = {}
        self._tokens = itertools.count(1)

    @classmethod
    async def open(cls, link: Link) -> PageReader:
        """A reader that lives as long as the link."""
        reader = cls(link)
        await link.listen(f"{reader._inbox}.*", reader._take)
        link.on_reconnect(reader._interrupt)
        return reader

    async def read(self, stream: str, after: int, up_to: int) -> AsyncIterator[Sequence[Stored]]:
        """As EventLog.read, of what one stream holds."""
        position = after + 1
        key = self._request(stream, position, up_to)
        try:
            while position <= up_to:
                records = await self._records(stream, key, position, up_to)
                del self._pages[key]
                position = records[-1].sequence + 1
                # The next page is on its way while the caller works on this one.
                key = self._request(stream, position, up_to)
                yield records
        finally:
            self._pages.pop(key, None)

    async def _records(self, stream: str, key: bytes, position: int, up_to: int) -> Sequence[Stored]:
        """The records of a page, asked for again while the broker is silent; the leader's where a replica has none."""
        for _ in range(READ_TRIES):
            page = self._pages[key]
            await asyncio.wait({page.done}, timeout=READ_TIMEOUT_S)
            if page.records:
                return page.records
            if page.answered:
                record = await leader_record(self._link, stream, position)
                if record is None:
                    raise LogCorruptError(f"record {position} is missing from the log", position=position)
                return [record]
            await _wait_up(self._link)
            self._send(stream, key, position, up_to)
        raise BrokerUnavailableError(f"NATS did not answer a read of record {position}; check the server")

    def _request(self, stream: str, position: int, up_to: int) -> bytes:
        key = f"{self._inbox}.{next(self._tokens)}".encode()
        self._send(stream, key, position, up_to)
        return key

    def _send(self, stream: str, key: bytes, position: int, up_to: int) -> None:
        page = self._pages[key] = _Page(position)
        count = min(READ_PAGE_RECORDS, up_to - position + 1)
        if count <= 0:
            return
        body = json.dumps({"seq": position, "batch": count, "max_bytes": READ_PAGE_BYTES}).encode()
        try:
            self._link.write(frames.publish(b"$JS.API.DIRECT.GET." + stream.encode(), body, reply=key))
        except BrokerUnavailableError:
            page.interrupt()

    def _take(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        page = self._pages.get(subject)
        if page is not None:
            page.take(headers or b"", data)

    def _interrupt(self) -> None:
        for page in self._pages.values():
            page.interrupt()


async def _wait_up(link: Link) -> None:
    """Waits for a reconnect, not for ever; whether it came shows when the link is used."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_TIMEOUT_S):
            await link.until_up()
