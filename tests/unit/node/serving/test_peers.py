"""Which node a request goes to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hivefold.oip.limits import PEER_FRESH_MS, PEER_SHUNNED_MS
from node.serving.peers import Peer, Peers


def peers(*draws: int) -> Peers:
    drawn: Iterator[int] = iter(draws)
    return Peers(lambda below: next(drawn) % below)


def hear(found: Peers, node_id: str, *, waiting: int = 0, memory: int = 0, now_ms: int = 0, digest: str = "d") -> None:
    found.hear(node_id, f"{node_id}:1", models=(digest,), waiting=waiting, memory_bytes=memory, now_ms=now_ms)


def name(peer: Peer | None) -> str:
    return peer.node_id if peer else ""


@pytest.mark.parametrize(("draws", "chosen"), [((0, 0), "a"), ((1, 1), "c"), ((2, 0), "a"), ((1, 0), "a")])
def test_of_two_drawn_the_one_with_less_in_hand_is_chosen(draws: tuple[int, int], chosen: str) -> None:
    """The two are never the same one: b, which has most, is chosen only where it is alone."""
    found = peers(*draws)
    for node_id, waiting in (("a", 1), ("b", 9), ("c", 4)):
        hear(found, node_id, waiting=waiting)
    assert name(found.holding("d", 0)) == chosen


def test_only_nodes_that_have_the_model_are_asked_for_it() -> None:
    """Of those, none that was tried, left, is silent or did not answer a moment ago."""
    found = peers()
    hear(found, "a", digest="other")
    assert found.holding("d", 0) is None
    hear(found, "b")
    assert name(found.holding("d", PEER_FRESH_MS)) == "b"
    assert found.holding("d", 0, {"b"}) is None
    assert found.holding("d", PEER_FRESH_MS + 1) is None
    peer = found.holding("d", 0)
    assert peer is not None
    found.shun(peer, 0)
    assert found.holding("d", 1) is None
    assert name(found.holding("d", PEER_SHUNNED_MS)) == "b"
    found.leave("b")
    assert found.holding("d", PEER_SHUNNED_MS) is None


def test_what_was_sent_since_a_heartbeat_counts() -> None:
    """Else all requests of a second would go to the node that was free at its beginning."""
    found = peers(*[0] * 8)
    hear(found, "a")
    hear(found, "b", waiting=2)
    for expected in ("a", "a", "a"):
        chosen = found.holding("d", 0)
        assert name(chosen) == expected
        assert chosen is not None
        chosen.sent += 1
    assert name(found.holding("d", 0)) == "b"
    hear(found, "a", waiting=3)  # its own number counts the three now
    assert [peer.load for peer in found._known.values()] == [3, 2]


def test_a_node_with_room_is_found_by_its_memory() -> None:
    """Where nobody has the model and this node has no room."""
    found = peers()
    hear(found, "a", memory=100)
    hear(found, "b", memory=1000)
    assert name(found.with_room(500, 0)) == "b"
    assert found.with_room(5000, 0) is None
