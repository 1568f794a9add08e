"""`hivefold log segments`: the parts of the log, and where each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli import words
from cli.address import Target, listed
from cli.output import show_many, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hivefold.v1 import log_service_pb2


def segments(*, target: Target = Target()) -> None:  # noqa: B008 - frozen
    """List the segments of the log: their records, and where they are: on the broker, in the mirror, the archive."""
    found = target.ask(lambda fleet: listed(fleet.log.segments()))
    show_many(target, "segments", found, lambda: _table(found))


def _table(found: Sequence[log_service_pb2.Segment]) -> RenderableType:
    return table(
        ("segment", "first", "last", "records", "size", "state", "where"),
        [
            (
                str(segment.number),
                str(segment.first_sequence),
                str(segment.last_sequence),
                words.count(_records(segment)),
                words.size(segment.size_bytes),
                "sealed" if segment.sealed else "open",
                ", ".join(_where(segment)) or "[bold red]nowhere[/]",
            )
            for segment in found
        ],
        right=("segment", "first", "last", "records", "size"),
    )


def _where(segment: log_service_pb2.Segment) -> Sequence[str]:
    """The places, as markup."""
    places = ["broker"] if segment.on_broker else []
    if segment.mirrored_sequence >= segment.last_sequence:
        places.append("mirror")
    elif segment.mirrored_sequence:
        places.append(f"[yellow]mirror up to {segment.mirrored_sequence}[/]")
    if segment.archive_path:
        places.append("archive, verified" if segment.archive_verified else "archive")
    return places


def _records(segment: log_service_pb2.Segment) -> int:
    return segment.last_sequence - segment.first_sequence + 1
