"""Reads the checkpoints that are kept, by the sizes of the logs that they commit to."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from hivefold.bus.port import CheckpointReader, Kept
from hivefold.proof.checkpoint import read_note
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint


async def kept_checkpoints(
    reader: CheckpointReader, *, after: int, up_to: int
) -> AsyncGenerator[SignedCheckpoint, None]:
    """Yields those of more records than `after` and of at most `up_to` (0: all), in the order of their sizes.

    Raises ProofError when one is malformed, BrokerUnavailableError.
    """
    last = await reader.last()
    if last is None or _parsed(last)[1] <= after:
        return
    index = await _first_after(reader, after, last.index)
    while (kept := await reader.next(index)) is not None:
        signed, size = _parsed(kept)
        if up_to and size > up_to:
            return
        if size > after:
            yield signed
        index = kept.index + 1


async def _first_after(reader: CheckpointReader, after: int, last: int) -> int:
    """Where to begin: sizes grow with the index."""
    low, high = 1, last
    while low < high:
        middle = (low + high) // 2
        kept = await reader.next(middle)
        if kept is None or _parsed(kept)[1] > after:
            high = middle
        else:
            low = kept.index + 1
    return low


def _parsed(kept: Kept) -> tuple[SignedCheckpoint, int]:
    signed = SignedCheckpoint.FromString(kept.data)
    return signed, read_note(signed.note).checkpoint.size
