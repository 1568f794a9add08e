"""Hears the other nodes' heartbeats."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from hivefold.bus.port import Message, Signals, Subscription
from hivefold.clock import Clock
from hivefold.limits import MODEL_FILES_KEPT
from hivefold.v1 import work_pb2
from node.serving.peers import Peers


async def hear_neighbours(signals: Signals, node_id: str, peers: Peers, clock: Clock) -> Subscription:
    """Keeps `peers` up to date with what the nodes beside `node_id` say of themselves."""

    def hear(message: Message) -> None:
        sender = message.subject.partition(".")[2]
        if sender == node_id:
            return
        beat = work_pb2.Heartbeat()
        try:
            beat.ParseFromString(message.data)
        except DecodeError:
            return
        if beat.leaving or beat.spec.node_id != sender or not beat.spec.grpc_address:
            peers.leave(sender)
            return
        peers.hear(
            sender,
            beat.spec.grpc_address,
            models=beat.loaded_models[:MODEL_FILES_KEPT],
            waiting=beat.inferences_in_hand,
            memory_bytes=beat.memory_available_bytes,
            now_ms=clock.monotonic_ms(),
        )

    return await signals.subscribe("heartbeat.*", hear)
