"""`hivefold log diff`: what changed between two moments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts.types import PositiveInt

from cli import words
from cli.address import Target
from cli.log.source import from_the_beginning, read_log
from cli.output import facts, show_one
from hivefold.errors import InvalidRequestError
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coordinator.audit.diff import Between, Change
    from coordinator.replay import Replayed


def diff(
    before: str,
    after: str,
    file: Path | None = None,
    *,
    limit: PositiveInt = 200,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Tell what changed between two moments: nodes, jobs, models, and how much was done.

    Parameters
    ----------
    before
        A position (120), a time with its zone (2026-11-21T14:00:00Z), a span before the last record (5m), or "end".
    after
        The same, later.
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    limit
        At most this many changes.
    """
    from coordinator.audit.diff import between, changes
    from coordinator.audit.moments import parse_moment, position_of, state_at

    moments = parse_moment(before), parse_moment(after)

    async def compared(log: ReadableLog) -> tuple[Replayed, Replayed, Between]:
        from_the_beginning(log)
        first, last = [await position_of(log, moment) for moment in moments]
        if first > last:
            raise InvalidRequestError(f"{before} (record {first}) is later than {after} (record {last}): swap them")
        old = await state_at(log, first)
        return old, await state_at(log, last, start=old), await between(log, after=first, up_to=last)

    old, new, counted = read_log(target, file, compared)
    found = list(changes(old.state, new.state))
    plain: dict[str, Any] = {
        "before": _moment_plain(old),
        "after": _moment_plain(new),
        "records": str(counted.records),
        "counts": {name: str(number) for name, number in counted.counts},
        "changes": [{"mark": c.mark.value, "kind": c.kind, "name": c.name, "text": c.text} for c in found[:limit]],
        "changeCount": len(found),
    }
    show_one(target, plain, lambda: _shown(old, new, counted, found, limit))


def _shown(old: Replayed, new: Replayed, counted: Between, found: list[Change], limit: int) -> RenderableType:
    from rich.console import Group

    from cli.views.stories import changes_table

    told = [
        ("before", _moment(old)),
        ("after", _moment(new)),
        ("in between", f"{words.count(counted.records)} records"),
        *((name, words.count(number)) for name, number in counted.counts),
    ]
    more = f"[dim]{words.count(len(found) - limit)} more: --limit shows them[/]" if len(found) > limit else ""
    parts = [facts(told), "", changes_table(found[:limit]) if found else "[dim]nothing changed[/]", more]
    return Group(*parts[: 4 if more else 3])


def _moment(replayed: Replayed) -> str:
    from cli.views import times

    state = replayed.state
    return f"record {words.count(state.sequence)}, {times.stamp(state.time_us)}Z, term {state.term}"


def _moment_plain(replayed: Replayed) -> dict[str, str]:
    from cli.views import times

    state = replayed.state
    return {
        "sequence": str(state.sequence),
        "time": times.iso(state.time_us),
        "term": str(state.term),
        "stateDigest": replayed.digest(),
    }
