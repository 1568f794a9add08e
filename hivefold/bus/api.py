"""JetStream's API: JSON in, JSON out, its errors as ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hivefold.bus import frames
from hivefold.bus.link import Link, NoRespondersError, Reply
from hivefold.errors import BrokerUnavailableError, ConfigError, HivefoldError, NotFoundError
from hivefold.limits import BROKER_ANSWER_S, BROKER_RETRY_MAX_MS, BROKER_RETRY_MS

NO_MESSAGE: Final = 10037
CONSUMER_MISSING: Final = 10014
MESSAGE_GONE: Final = frozenset({10037, 10043})
"""Deleting what is not there: no message found, sequence not found."""
STREAM_MISSING: Final = 10059
STREAM_EXISTS: Final = 10058
STORAGE_SHORT: Final = frozenset({10023, 10028, 10047, 10077})
"""No room left: on the server, in the account, in the stream."""
WRONG_LAST: Final = 10071
"""The subject already holds a message."""
EXPECT_NEW: Final = "Nats-Expected-Last-Subject-Sequence"
"""Only where the last message of the subject is this one; with value 0: only where the subject holds nothing."""


class ApiError(HivefoldError):
    """JetStream refused a call; `code` is its err_code."""

    def __init__(self, subject: str, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("err_code", 0))
        self.description = str(error.get("description", "no reason given"))
        super().__init__(f"JetStream refused {subject}: {self.description} ({self.code})")


async def call(
    link: Link, name: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = BROKER_ANSWER_S
) -> dict[str, Any]:
    """Calls `$JS.API.<name>`. Raises ApiError, BrokerUnavailableError."""
    subject = f"$JS.API.{name}"
    data = json.dumps(body).encode() if body else b""
    return _checked(subject, (await link.ask(subject, data, timeout_s=timeout_s)).data)


async def store(
    link: Link, subject: str, data: bytes, *, headers: bytes = b"", before: bytes = b"", timeout_s: float
) -> int:
    """Publishes to a stream and waits until it is stored; returns its sequence. Raises as call does.

    `before` holds the earlier messages of an atomic batch.
    """
    reply = await link.ask(subject, data, headers=headers, before=before, timeout_s=timeout_s)
    return int(_checked(subject, reply.data)["seq"])


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message read from a stream."""

    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


async def last_on(link: Link, stream: str, subject: str, timeout_s: float = BROKER_ANSWER_S) -> StoredMessage:
    """The last message on a subject, by direct get. Raises NotFoundError, BrokerUnavailableError."""
    return _direct(await link.ask(f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout_s=timeout_s), subject)


async def message_at(link: Link, stream: str, body: Mapping[str, Any]) -> StoredMessage:
    """The message that `body` selects (`seq` or `last_by_subj`), by direct get. Raises as last_on does."""
    data = json.dumps(body).encode()
    reply = await link.ask(f"$JS.API.DIRECT.GET.{stream}", data, timeout_s=BROKER_ANSWER_S)
    return _direct(reply, f"{stream} at {body}")


class Retry:
    """Growing waits for calls that are tried until they succeed, or until the connection is closed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wait_ms = BROKER_RETRY_MS

    async def ready(self) -> None:
        """Waits until the connection is up. Raises BrokerUnavailableError once it is closed."""
        await self._link.until_up()

    async def pause(self) -> None:
        """Waits before the next try, longer each time."""
        await asyncio.sleep(self._wait_ms / 1000)
        self._wait_ms = min(BROKER_RETRY_MAX_MS, self._wait_ms * 2)


def _checked(subject: str, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        raise BrokerUnavailableError(f"the answer on {subject} is not JetStream's; check who serves it") from None
    if not isinstance(answer, dict):
        raise BrokerUnavailableError(f"the answer on {subject} is not JetStream's; check who serves it")
    if error := answer.get("error"):
        raise ApiError(subject, error)
    return answer


def _direct(reply: Reply, what: str) -> StoredMessage:
    code, text = frames.status_of(reply.headers)
    if code == 404:
        raise NotFoundError(f"nothing is stored under {what}")
    if code:
        raise BrokerUnavailableError(f"reading {what} failed: {code} {text}; try again")
    headers = frames.parse_headers(reply.headers)
    return StoredMessage(int(headers["nats-sequence"]), headers["nats-subject"], reply.data, headers)


def without_jetstream(error: NoRespondersError) -> ConfigError:
    """What a missing API means at start."""
    return ConfigError(
        "this NATS account has no JetStream: start nats-server with -js (or a jetstream block) and enable it "
        "for the account",
        metadata={"cause": error.message},
    )
