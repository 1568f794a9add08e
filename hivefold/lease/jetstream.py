"""The lease on a NATS JetStream stream of one message with a time to live (ADR-43 of the NATS project)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from hivefold.bus import api, frames
from hivefold.bus.link import Link, NoRespondersError
from hivefold.errors import BrokerUnavailableError, ConfigError, LeaseLostError
from hivefold.lease.port import Holder, Standing
from hivefold.limits import LEASE_ANSWER_S, LEASE_TTL_S

STREAM: Final = "HF_LEASE"
SUBJECT: Final = "lease.coordinator"
_PRESENT: Final = "coordinator.present"
_GET: Final = f"STREAM.MSG.GET.{STREAM}"
_STREAM_BYTES: Final = 64 * 1024


async def open_lease(link: Link, *, ttl_s: int = LEASE_TTL_S, replicas: int = 1) -> JetStreamLease:
    """The lease over a connection of account CORE, whose stream is made where there is none.

    Raises ConfigError when the server cannot keep one, BrokerUnavailableError.
    """
    lease = JetStreamLease(link, ttl_s)
    # Before the first request: its answer tells that the server knows of the subscription, and no claim goes unheard.
    await link.listen(SUBJECT, lease.changed)
    try:
        made = await _info_or_create(link, replicas)
    except NoRespondersError as error:
        raise api.without_jetstream(error) from None
    except api.ApiError as error:
        raise ConfigError(f"cannot make stream {STREAM}: {error}; check the account's limits") from None
    config = made["config"]
    if not config.get("allow_msg_ttl") or config.get("max_msgs_per_subject") != 1:
        raise ConfigError(
            f"stream {STREAM} exists and cannot hold the lease (it needs allow_msg_ttl and max_msgs_per_subject 1): "
            "delete it; coordinators make it anew"
        )
    return lease


async def _info_or_create(link: Link, replicas: int) -> dict[str, Any]:
    try:
        return await api.call(link, f"STREAM.INFO.{STREAM}")
    except api.ApiError as error:
        if error.code != api.STREAM_MISSING:
            raise
    return await api.call(
        link,
        f"STREAM.CREATE.{STREAM}",
        {
            "name": STREAM,
            "subjects": ["lease.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "max_bytes": _STREAM_BYTES,
            "allow_msg_ttl": True,
            "num_replicas": replicas,
        },
    )


class JetStreamLease:
    """hivefold.lease.port.Lease."""

    def __init__(self, link: Link, ttl_s: int) -> None:
        self._link = link
        self._ttl_s = ttl_s
        self._callbacks: list[Callable[[], None]] = []

    @property
    def ttl_ms(self) -> int:
        """How long a claim holds; the server looks for lapsed ones about once a second."""
        return self._ttl_s * 1000

    async def look(self) -> Standing:
        """The lease as the stream's leader has it."""
        try:
            answer = await api.call(self._link, _GET, {"last_by_subj": SUBJECT}, timeout_s=LEASE_ANSWER_S)
        except api.ApiError as error:
            if error.code == api.NO_MESSAGE:
                return Standing(0, None)
            raise BrokerUnavailableError(f"the lease cannot be read: {error}; check the server") from None
        message = answer["message"]
        return Standing(int(message["seq"]), _read(base64.b64decode(message.get("data", ""))))

    async def claim(self, holder: Holder | None, *, revision: int) -> int:
        """Publishes the holder with the expected revision and a new time to live."""
        headers = frames.header_block({api.EXPECT_NEW: str(revision), "Nats-TTL": f"{self._ttl_s}s"})
        data = json.dumps(asdict(holder)).encode() if holder else b""
        try:
            return await api.store(self._link, SUBJECT, data, headers=headers, timeout_s=LEASE_ANSWER_S)
        except api.ApiError as error:
            if error.code == api.WRONG_LAST:
                raise LeaseLostError("another coordinator claimed the lease, or it lapsed") from None
            raise BrokerUnavailableError(f"the lease cannot be written: {error}; check the server") from None

    async def attend(self, holder: Holder) -> None:
        """Answers on a subject of this process."""
        await self._link.listen(f"{_PRESENT}.{holder.token}", self._present)
        if await self.is_gone(holder):  # which the server answers only after it has heard of the subscription
            raise BrokerUnavailableError("the server does not know this coordinator's subscription yet; try again")

    async def is_gone(self, holder: Holder) -> bool:
        """Asks on the subject of that process: a server that knows nobody there says so at once."""
        try:
            await self._link.ask(f"{_PRESENT}.{holder.token}", timeout_s=LEASE_ANSWER_S)
        except NoRespondersError:
            return True
        except BrokerUnavailableError:
            if not self._link.is_connected:
                raise
        return False

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when somebody claims."""
        self._callbacks.append(callback)

    def changed(self, _subject: bytes, _reply: bytes, _data: bytes, _headers: bytes | None) -> None:
        """Somebody published a claim, granted or not."""
        for callback in self._callbacks:
            callback()

    def _present(self, _subject: bytes, reply: bytes, _data: bytes, _headers: bytes | None) -> None:
        if reply and self._link.is_connected:
            self._link.write(frames.publish(reply, b"+"))


def _read(data: bytes) -> Holder | None:
    """Who is written there; None where nobody is."""
    if not data:
        return None
    try:
        plain = json.loads(data)
        return Holder(
            str(plain["coordinator_id"]), str(plain["address"]), str(plain["token"]), int(plain.get("term", 0))
        )
    except (ValueError, KeyError, TypeError):
        raise BrokerUnavailableError(
            f"what stream {STREAM} holds is not a coordinator's; delete it, or wait until it lapses"
        ) from None
