"""Atomic batches: many messages stored with one answer and one fsync, all or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hivefold import failpoints
from hivefold.bus import api, frames
from hivefold.bus.link import Link
from hivefold.limits import BATCH_BYTES, BROKER_ANSWER_S


class Outgoing(NamedTuple):
    """A message to store. `header_lines` are whole lines, each with its line break."""

    subject: str
    data: bytes
    header_lines: bytes = b""


async def store_batch(link: Link, messages: Sequence[Outgoing], timeout_s: float = BROKER_ANSWER_S) -> int:
    """Stores all or none, in order; returns the sequence of the last.

    Raises ApiError (nothing stored) or BrokerUnavailableError (unknown).
    """
    *earlier, last = messages
    if not earlier:
        headers = b"NATS/1.0\r\n%b\r\n" % last.header_lines if last.header_lines else b""
        return await api.store(link, last.subject, last.data, headers=headers, timeout_s=timeout_s)
    batch = link.new_inbox().rpartition(".")[2].encode()
    template = b"NATS/1.0\r\nNats-Batch-Id: " + batch + b"\r\nNats-Batch-Sequence: %d\r\n%b%b\r\n"
    before = b"".join(
        [
            frames.publish(
                frames.subject_bytes(message.subject),
                message.data,
                headers=template % (number, b"", message.header_lines),
            )
            for number, message in enumerate(earlier, 1)
        ]
    )
    await _die_in_between(link, before)
    headers = template % (len(messages), b"Nats-Batch-Commit: 1\r\n", last.header_lines)
    return await api.store(link, last.subject, last.data, headers=headers, before=before, timeout_s=timeout_s)


async def store_chain(link: Link, messages: Sequence[Outgoing], timeout_s: float = BROKER_ANSWER_S) -> int:
    """Stores one after the other with one answer, that of the last; returns its sequence.

    Each message MUST be refused (by its header lines) where the one before it is missing, or none be
    refused at all; then the answer stands for all. An error leaves open how many were stored. Raises as
    store_batch does.
    """
    blocks = [
        (frames.subject_bytes(message.subject), message.data, b"NATS/1.0\r\n%b\r\n" % message.header_lines)
        for message in messages
    ]
    before = b"".join([frames.publish(subject, data, headers=block) for subject, data, block in blocks[:-1]])
    if before:
        await _die_in_between(link, before)
    last = messages[-1]
    return await api.store(link, last.subject, last.data, headers=blocks[-1][2], before=before, timeout_s=timeout_s)


async def _die_in_between(link: Link, before: bytes) -> None:
    """Where that is asked for: the server gets all but the last message, and then nothing more."""
    if failpoints.strikes(failpoints.Failpoint.MID_BATCH):
        link.write(before)
        await link.flush()
        failpoints.die()


def split(messages: Sequence[Outgoing], most: int) -> Iterator[list[Outgoing]]:
    """Cuts into batches of at most `most` messages and BATCH_BYTES.

    Raises LimitExceededError for a message that no server takes.
    """
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        length = len(message.data)
        frames.check_length(message.subject, length)
        if batch and (len(batch) == most or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch
