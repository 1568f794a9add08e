"""The other nodes as their heartbeats describe them, and which of them a request goes to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hivefold.oip.limits import PEER_FRESH_MS, PEER_SHUNNED_MS, PEERS


@dataclass(slots=True)
class Peer:
    """Another node."""

    node_id: str
    address: str
    heard_ms: int
    models: frozenset[str] = frozenset()
    """Digests of the models that it has loaded."""
    waiting: int = 0
    """Requests that it had in hand when it was heard."""
    memory_bytes: int = 0
    """Memory that it could give to a model."""
    sent: int = 0
    """Requests that this node has with it now."""
    sent_then: int = 0
    """Of those, the ones that it had when it was heard: its own number counts them."""
    shunned_until_ms: int = 0

    @property
    def load(self) -> int:
        """Requests that it has in hand as far as can be told."""
        return max(self.waiting + self.sent - self.sent_then, self.sent)


@dataclass(slots=True)
class Peers:
    """Who is there. `draw` gives a random number from 0 up to, not including, its argument."""

    draw: Callable[[int], int]
    _known: dict[str, Peer] = field(default_factory=dict)

    def hear(
        self, node_id: str, address: str, *, models: Collection[str], waiting: int, memory_bytes: int, now_ms: int
    ) -> None:
        """Notes a heartbeat."""
        peer = self._known.get(node_id)
        if peer is None:
            self._forget_silent(now_ms)
            if len(self._known) >= PEERS:
                return
            peer = self._known[node_id] = Peer(node_id, address, now_ms)
        if peer.address != address:
            peer.address, peer.shunned_until_ms = address, 0
        peer.heard_ms = now_ms
        if len(models) != len(peer.models) or not peer.models.issuperset(models):
            peer.models = frozenset(models)
        peer.waiting, peer.memory_bytes, peer.sent_then = waiting, memory_bytes, peer.sent

    def leave(self, node_id: str) -> None:
        """The node takes no more requests."""
        self._known.pop(node_id, None)

    def shun(self, peer: Peer, now_ms: int) -> None:
        """The node did not answer: others are asked for a while."""
        peer.shunned_until_ms = now_ms + PEER_SHUNNED_MS

    def holding(self, digest: str, now_ms: int, tried: Collection[str] = ()) -> Peer | None:
        """One of the nodes that have the model loaded: of two drawn at random the one with less in hand."""
        return self._better([peer for peer in self._there(now_ms, tried) if digest in peer.models])

    def with_room(self, needed_bytes: int, now_ms: int, tried: Collection[str] = ()) -> Peer | None:
        """One of the nodes that could load a model of this size, drawn as above."""
        return self._better([peer for peer in self._there(now_ms, tried) if peer.memory_bytes >= needed_bytes])

    def _there(self, now_ms: int, tried: Collection[str]) -> list[Peer]:
        return [
            peer
            for peer in self._known.values()
            if now_ms - peer.heard_ms <= PEER_FRESH_MS and peer.shunned_until_ms <= now_ms and peer.node_id not in tried
        ]

    def _better(self, peers: list[Peer]) -> Peer | None:
        if len(peers) < 2:
            return peers[0] if peers else None
        first = self.draw(len(peers))
        second = self.draw(len(peers) - 1)
        one, other = peers[first], peers[second + (second >= first)]
        return one if one.load <= other.load else other

    def _forget_silent(self, now_ms: int) -> None:
        for node_id in [found for found, peer in self._known.items() if now_ms - peer.heard_ms > 2 * PEER_FRESH_MS]:
            del self._known[node_id]
