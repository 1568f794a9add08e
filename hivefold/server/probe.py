"""Asks a nats-server, in its own protocol, whether it lets a user in."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from hivefold.broker import Secret

_ANSWER_S: Final = 1.0


async def lets_in(host: str, port: int, user: str, password: Secret) -> bool:
    """Whether a server with JetStream listens there and takes this user. Never raises for the network's sake."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await _greet(reader, writer, user, password)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, password: Secret) -> bool:
    verb, _, information = (await reader.readline()).partition(b" ")
    if verb != b"INFO" or not json.loads(information).get("jetstream"):
        return False
    login = {"user": user, "pass": password.reveal(), "verbose": False, "pedantic": False, "lang": "python"}
    writer.write(b"CONNECT %b\r\nPING\r\n" % json.dumps(login).encode())
    await writer.drain()
    return (await reader.readline()).startswith(b"PONG")
