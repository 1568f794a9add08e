"""`hivefold log tail`: the last records, and new ones as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from cli.address import Target
from cli.output import write_json

if TYPE_CHECKING:
    from hivefold.client import Fleet
    from hivefold.v1 import record_pb2


def tail(
    *,
    lines: Annotated[NonNegativeInt, Parameter(name=("--lines", "-n"))] = 20,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative=())] = False,
    after: NonNegativeInt | None = None,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Print the last records: position, time, term, cause, events.

    With -o json or jsonl, one line for each record.

    Parameters
    ----------
    lines
        How many.
    follow
        Go on with new records as they come.
    after
        Instead of the last ones: all records after this position.
    """

    async def read(fleet: Fleet) -> None:
        head = await fleet.log.head()
        start = max(0, head.sequence - lines) if after is None else after
        if start >= head.sequence and not follow:
            return
        async for stored in fleet.log.read(after=start, up_to=0 if follow else head.sequence, follow=follow):
            _show_record(target, stored)

    target.ask(read)


def _show_record(target: Target, stored: record_pb2.StoredRecord) -> None:
    from cli.views import records

    if target.output == "text":
        print(records.line(stored), flush=True)
    else:
        write_json(records.plain(stored))
