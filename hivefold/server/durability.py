"""What a NATS server promises: looked up at start, compared with what is asked for."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from hivefold.broker import BrokerSettings
from hivefold.bus import api, frames
from hivefold.bus.connection import connect
from hivefold.bus.link import Link, NoRespondersError
from hivefold.config import Durability
from hivefold.errors import BrokerUnavailableError, ConfigError, DurabilityWeakError
from hivefold.server.binary import MINIMUM_VERSION, parse_version, version_text
from hivefold.server.limits import (
    SERVER_ANSWER_BYTES,
    SERVER_ANSWER_S,
    SERVER_STRAGGLERS_S,
)

_JETSTREAM_OFF: Final = (10035, 10039, 10076)
_STRENGTH: Final = (Durability.UNKNOWN, Durability.FSYNC_INTERVAL, Durability.FSYNC_ALWAYS)
_VARZ: Final = "$SYS.REQ.SERVER.PING.VARZ"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What was found out about the server that holds the log."""

    version: tuple[int, int, int]
    durability: Durability


async def check_server(
    link: Link,
    required: Durability,
    *,
    system: BrokerSettings | None = None,
    monitor_url: str = "",
) -> ServerFacts:
    """Finds out what the server behind `link` (the log's account) is and promises.

    `system` (its system account) or `monitor_url` (http://127.0.0.1:8222) tells when it syncs.
    Raises ConfigError without JetStream or before 2.12, DurabilityWeakError when it promises less
    than `required`; each says what to change.
    """
    await _require_jetstream(link)
    version = _require_version(str(link.connected_server_version))
    durability = await _durability(system, monitor_url)
    if _STRENGTH.index(durability) < _STRENGTH.index(required):
        raise DurabilityWeakError(
            _advice(durability, required), metadata={"found": durability.value, "required": required.value}
        )
    return ServerFacts(version, durability)


async def _require_jetstream(link: Link) -> None:
    try:
        await api.call(link, "INFO")
    except NoRespondersError as error:
        raise api.without_jetstream(error) from error
    except api.ApiError as error:
        if error.code in _JETSTREAM_OFF:
            raise ConfigError(
                "JetStream is off: start nats-server with -js, or enable jetstream for this account in its file"
            ) from error
        raise ConfigError(f"JetStream refuses this user: {error}; check its permissions") from error


def _require_version(text: str) -> tuple[int, int, int]:
    version = parse_version(text)
    if version is None or version < MINIMUM_VERSION:
        raise ConfigError(
            f"nats-server {text} cannot store batches atomically; "
            f"install {version_text(MINIMUM_VERSION)} or newer, best 2.15.1 or newer"
        )
    return version


async def _durability(system: BrokerSettings | None, monitor_url: str) -> Durability:
    """The weakest of all servers that answer; UNKNOWN when nobody can be asked."""
    if system is not None:
        answers = await _ask_system(system)
    elif monitor_url:
        answers = [await asyncio.to_thread(_ask_monitor, monitor_url)]
    else:
        answers = []
    found = [durability_of(answer) for answer in answers if answer.get("jetstream")]
    return min(found, key=_STRENGTH.index, default=Durability.UNKNOWN)


def durability_of(varz: Mapping[str, Any]) -> Durability:
    """What a server's /varz says about its sync."""
    jetstream = (varz.get("jetstream") or {}).get("config")
    if not isinstance(jetstream, Mapping):
        return Durability.UNKNOWN
    if jetstream.get("sync_always") is True:
        return Durability.FSYNC_ALWAYS
    return Durability.FSYNC_INTERVAL if "sync_interval" in jetstream else Durability.UNKNOWN


async def _ask_system(system: BrokerSettings) -> list[dict[str, Any]]:
    """/varz of every server of the cluster that answers in time."""
    link = await connect(system)
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    def take(_subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        answers.put_nowait(data)

    try:
        inbox = link.new_inbox()
        await link.listen(inbox, take)
        link.write(frames.publish(_VARZ.encode(), b"", reply=inbox.encode()))
        async with asyncio.timeout(SERVER_ANSWER_S):
            first = _varz(await answers.get())
        if not first.get("cluster"):
            return [first]
        await asyncio.sleep(SERVER_STRAGGLERS_S)
        return [first, *(_varz(answers.get_nowait()) for _ in range(answers.qsize()))]
    except (TimeoutError, ValueError):
        raise ConfigError(
            f"user {system.user!r} cannot ask the server for its settings; it must be of the system account"
        ) from None
    finally:
        await link.close()


def _varz(answer: bytes) -> dict[str, Any]:
    """The settings in an answer. Raises ValueError for one that is none: no such account, nobody there."""
    data = json.loads(answer).get("data") if answer else None
    if not isinstance(data, dict):
        raise ValueError("not a server's answer")  # noqa: TRY004 - a wrong answer, not a wrong call
    return data


def _ask_monitor(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"monitor_url {url!r} must be http://host:port, as http_port of nats-server says")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/varz", timeout=SERVER_ANSWER_S) as answer:  # noqa: S310
            varz = json.loads(answer.read(SERVER_ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise BrokerUnavailableError(f"{url} did not tell the server's settings: {error}; check monitor_url") from error
    return varz if isinstance(varz, dict) else {}


def _advice(found: Durability, required: Durability) -> str:
    accept = f'or accept less with durability = "{found}"'
    if found is Durability.UNKNOWN:
        return (
            f"it is unknown whether nats-server syncs before it answers, and {required} is required: "
            "set monitor_url or a user of the system account under [system], so that it can be looked up, " + accept
        )
    return (
        f"nats-server syncs at an interval, and {required} is required: what it has acknowledged may be lost with the "
        "power. Set sync_interval: always in the jetstream section of its configuration and restart it, " + accept
    )
