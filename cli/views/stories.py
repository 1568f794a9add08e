"""Stories, changes and differences as people and programs see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli import words
from cli.output import as_plain, facts, table
from cli.views import times
from coordinator.audit.diff import Change, Mark
from coordinator.audit.story import Line, Story, Tone, Work
from coordinator.core.events import Event
from coordinator.wire.events import event_to_proto

if TYPE_CHECKING:
    from rich.console import RenderableType

_TONES: Final = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.BAD: "bold red", Tone.WARNING: "yellow"}
_MARKS: Final = {Mark.ADDED: "green", Mark.CHANGED: "yellow", Mark.GONE: "red"}


def story_view(story: Story) -> RenderableType:
    """A story: what is known, the lines in order, the work by node (or by job)."""
    head = Text.assemble((f"{story.kind} ", "dim"), (story.subject, "bold"))
    parts: list[RenderableType] = [head, facts((name, escape(value)) for name, value in story.facts), ""]
    parts.append(_timeline(story))
    if story.work:
        parts += ["", _work("job" if story.kind == "node" else "node", story.work)]
    return Group(*parts)


def story_plain(story: Story) -> dict[str, Any]:
    """A story for programs; each line with its event in protobuf's JSON mapping."""
    return {
        "kind": story.kind.value,
        "subject": story.subject,
        "facts": dict(story.facts),
        "lines": [_line_plain(line) for line in story.lines],
        "omittedLines": story.omitted,
        "work": [{"name": name, **_camel(asdict(work))} for name, work in story.work],
    }


def changes_table(changes: Sequence[Change]) -> RenderableType:
    """A line for each thing that changed."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for column in ("mark", "kind", "name"):
        made.add_column(column, no_wrap=True)
    made.add_column("text", overflow="fold")
    for change in changes:
        style = _MARKS[change.mark]
        made.add_row(f"[{style}]{change.mark}[/]", f"[dim]{change.kind}[/]", change.name, escape(change.text))
    return made


def event_plain(event: Event) -> dict[str, Any]:
    """An event in protobuf's JSON mapping."""
    return as_plain(event_to_proto(event))


def _timeline(story: Story) -> RenderableType:
    """Lines; position, time and cause are said once for what was decided together."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    made.add_column("record", justify="right", style="dim", no_wrap=True)
    made.add_column("time", no_wrap=True)
    made.add_column("upon", style="dim", overflow="fold", max_width=24)
    made.add_column("what", no_wrap=True)
    made.add_column("", overflow="fold")
    lines = story.lines
    skipped_after = (len(lines) + 1) // 2 if story.omitted else -1
    for index, (line, told) in enumerate(_told_once(lines)):
        if index == skipped_after:
            made.add_row("", "", "", f"[dim]{words.count(story.omitted)} more[/]", "[dim]--limit shows them[/]")
        text = Text(line.text)
        for detail in line.details:
            text.append(f"\n{detail}", style="dim")
        made.add_row(*told, f"[{_TONES[line.tone]}]{line.title}[/]" if _TONES[line.tone] else line.title, text)
    return made


def _told_once(lines: Sequence[Line]) -> Iterator[tuple[Line, tuple[str, str, str]]]:
    before, day = 0, ""
    for line in lines:
        told = ("", "", "")
        if line.sequence != before:
            date, _, clock = times.stamp(line.time_us).partition(" ")
            told = (str(line.sequence), clock if date == day else f"{date} {clock}", escape(line.cause))
            before, day = line.sequence, date
        yield line, told


def _work(unit: str, work: Sequence[tuple[str, Work]]) -> RenderableType:
    rows = [
        (
            name,
            words.count(share.assigned),
            words.count(share.succeeded),
            words.count(share.failed) if share.failed else "",
            words.count(share.lost) if share.lost else "",
            words.count(share.row_count),
            words.span(share.busy_us / 1e6 / share.succeeded) if share.succeeded else "",
            words.span(share.longest_us / 1e6) if share.succeeded else "",
        )
        for name, share in work
    ]
    headings = (unit, "attempts", "answered", "failed", "lost", "rows", "mean", "longest")
    return table(headings, rows, right=headings[1:])


def _line_plain(line: Line) -> dict[str, Any]:
    return {
        "sequence": str(line.sequence),
        "time": times.iso(line.time_us),
        "term": str(line.term),
        "cause": line.cause,
        "title": line.title,
        "text": line.text,
        "details": list(line.details),
        "tone": line.tone.value,
        "event": event_plain(line.event) if line.event is not None else None,
    }


def _camel(values: dict[str, Any]) -> dict[str, Any]:
    def renamed(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)

    return {renamed(name): value for name, value in values.items()}
