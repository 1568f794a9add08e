"""`hivefold log recheck`: whether the code of today decides what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveInt

from cli import words
from cli.address import Target
from cli.exits import Exit
from cli.log.source import from_the_beginning, read_log
from cli.output import facts, show_one
from cli.progress import Bar
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.audit.recheck import Difference, Rechecked


def recheck(
    file: Path | None = None,
    *,
    limit: PositiveInt = 20,
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Decide every record again, from the state before it and its recorded cause, with the code of today.

    Every difference is listed with both versions. Exits 1 when there are any. What was recorded stays what
    happened: a difference says that this version would have decided otherwise, or that somebody made the record up.

    Parameters
    ----------
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    limit
        Show at most this many differences.
    """
    from coordinator.audit.recheck import recheck as decide_again

    async def rechecked(log: ReadableLog) -> Rechecked:
        from_the_beginning(log)
        last = (await log.head()).sequence
        with Bar("recheck", "records") as bar:
            return await decide_again(
                log, up_to=last, limit=limit, progress=lambda position: bar.update(position, last)
            )

    found = read_log(target, file, rechecked)
    show_one(target, _plain(found), lambda: _shown(found))
    return Exit.FAILED if found.difference_count else Exit.OK


def _plain(found: Rechecked) -> dict[str, Any]:
    from hivefold.version import VERSION

    return {
        "recordCount": str(found.records),
        "differenceCount": str(found.difference_count),
        "recordedBy": list(found.code_versions),
        "decidedBy": VERSION,
        "differences": [_difference_plain(difference) for difference in found.differences],
    }


def _difference_plain(difference: Difference) -> dict[str, Any]:
    from cli.views import times
    from cli.views.stories import event_plain
    from coordinator.core.model import Rejected

    answer = difference.decided
    refused = {"reason": answer.reason.value, "message": answer.message} if isinstance(answer, Rejected) else None
    decided = () if isinstance(answer, Rejected) else answer
    return {
        "sequence": str(difference.sequence),
        "term": str(difference.term),
        "time": times.iso(difference.time_us),
        "recordedBy": difference.code_version,
        "cause": difference.cause,
        "recorded": [event_plain(event) for event in difference.recorded],
        "decided": [event_plain(event) for event in decided],
        "refused": refused,
    }


def _shown(found: Rechecked) -> RenderableType:
    from rich.console import Group

    from hivefold.version import VERSION

    count = found.difference_count
    verdict = (
        f"[bold red]{words.count(count)} would be decided otherwise[/]"
        if count
        else "[bold green]all would be decided the same[/]"
    )
    told = facts(
        [
            ("rechecked", f"{words.count(found.records)} records"),
            ("written by", ", ".join(found.code_versions)),
            ("decided by", VERSION),
            ("", verdict),
        ]
    )
    more = f"[dim]{words.count(count - len(found.differences))} more: --limit shows them[/]"
    return Group(told, *map(_difference_view, found.differences), *([more] if count > len(found.differences) else ()))


def _difference_view(difference: Difference) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cli.views import times
    from coordinator.core.model import Rejected

    decided, index = difference.decided, difference.first
    if isinstance(decided, Rejected):
        today = f"refused, {decided.reason}: {decided.message}"
    else:
        today = str(decided[index]) if index < len(decided) else "nothing more"
    recorded = str(difference.recorded[index]) if index < len(difference.recorded) else "nothing more"
    head = f"record {difference.sequence}, {times.stamp(difference.time_us)}Z, upon {difference.cause}"
    return Group(
        "",
        Text(f"{head}, version {difference.code_version}, event {index + 1} of {len(difference.recorded)}"),
        Text(f"- {recorded}", style="red"),
        Text(f"+ {today}", style="green"),
    )
