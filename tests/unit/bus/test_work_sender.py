"""What the sender of work asks of the broker, and how often."""

from __future__ import annotations

import asyncio
import json

from hivefold.bus.link import Link, NoRespondersError, Reply
from hivefold.bus.work import NatsWorkSender


class LosesItsMemory(Link):
    """A broker that forgets its memory streams while the connection stays, as when another server takes them over."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.remembers = True

    async def ask(
        self, subject: str, data: bytes = b"", *, headers: bytes = b"", before: bytes = b"", timeout_s: float
    ) -> Reply:
        await asyncio.sleep(0)
        if "CONSUMER" in subject:
            self.made.append(subject.rpartition(".")[2])
            self.remembers = True
        elif not self.remembers:
            raise NoRespondersError("nothing serves it")
        return Reply(json.dumps({"seq": 1, "config": {}}).encode(), None)


async def test_consumers_that_were_lost_are_made_once_however_much_is_on_its_way() -> None:
    """Not once for each message: with a thousand nodes that would be many thousand calls before any work goes out."""
    link = LosesItsMemory()
    sender = NatsWorkSender(link)
    nodes = [f"n{number}" for number in range(20)]
    for node_id in nodes:
        await sender.prepare(node_id)
    link.made.clear()
    link.remembers = False

    await asyncio.gather(*(sender.send(node_id, b"work") for node_id in nodes))

    assert sorted(link.made) == sorted(nodes)
