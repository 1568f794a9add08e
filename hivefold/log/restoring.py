"""Puts a log back from a copy: the same bytes under the same subjects at the same positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hivefold.errors import ConflictError, Reason
from hivefold.limits import APPEND_BATCH_BYTES, APPEND_BATCH_RECORDS
from hivefold.log.port import TERM_SUBJECT, Entry, EventLog, Head, ReadableLog, Stored


async def restore(log: EventLog, source: ReadableLog, on_progress: Callable[[int, int], None]) -> Head:
    """Appends all records of `source` that `log` does not hold yet; gives the end of the log.

    May be repeated after an interruption: what is there already is compared, byte by byte. The source MUST
    have been verified, and nobody else may write. `on_progress` gets records done and records in all.
    Raises ConflictError when the log holds something else, LogError, UnavailableError.
    """
    last = (await source.head()).sequence
    head = await log.head()
    await _compare(log, source, min(head.sequence, last))
    if head.sequence > last:
        raise ConflictError(
            f"the log holds {head.sequence} records, the copy {last} of them: there is nothing to restore",
            reason=Reason.LOG_CORRUPT,
        )
    on_progress(head.sequence, last)
    async for page in source.read(after=head.sequence, up_to=last):
        for batch in batches(page):
            entries = [Entry(stored.subject, stored.data) for stored in batch]
            await log.append(entries, expected_sequence=head.sequence, term_sequence=head.term_sequence)
            ended = batch[-1]
            term = ended.sequence if ended.subject == TERM_SUBJECT else head.term_sequence
            head = Head(ended.sequence, term)
            on_progress(head.sequence, last)
    return head


async def _compare(log: EventLog, source: ReadableLog, up_to: int) -> None:
    """Raises ConflictError at the first record of `log` that is not the copy's."""
    if not up_to:
        return
    there = log.read(after=0, up_to=up_to)
    copies = source.read(after=0, up_to=up_to)
    held: list[Stored] = []
    async for page in copies:
        for copy in page:
            if not held:
                held = list(await anext(there))
            if held.pop(0) != copy:
                raise ConflictError(
                    f"record {copy.sequence} of the log is not that of the copy: restore into an empty server",
                    reason=Reason.LOG_CORRUPT,
                )


def batches(page: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Cuts a page as appends must be cut: within the bounds, the start of a term alone, for it fences what follows."""
    batch: list[Stored] = []
    size = 0
    for stored in page:
        full = len(batch) >= APPEND_BATCH_RECORDS or size + len(stored.data) > APPEND_BATCH_BYTES
        if batch and (full or TERM_SUBJECT in {stored.subject, batch[-1].subject}):
            yield batch
            batch, size = [], 0
        batch.append(stored)
        size += len(stored.data)
    if batch:
        yield batch
