"""What commands print: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TextIO

from cyclopts import Parameter

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

Format = Literal["text", "json", "jsonl"]
OutputFormat = Annotated[Format, Parameter(name=("--output", "-o"))]
_UNBOUNDED_WIDTH: Final = 10_000
"""Nothing is cut or wrapped where a program reads."""
_GAP: Final = 2
"""Blanks between two columns."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Shown:
    """How a command prints."""

    output: OutputFormat = "text"
    """What is printed: text for people, json (one document) or jsonl (one line each) for programs."""


def colour_on(stream: TextIO) -> bool:
    """Whether to colour what goes to `stream`: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A rich console for standard output (or `stream`); plain and without a width where it is no terminal."""
    from rich.console import Console

    file = sys.stdout if stream is None else stream
    width = None if file.isatty() else _UNBOUNDED_WIDTH
    return Console(file=file, width=width, highlight=False, soft_wrap=not file.isatty())


def note(text: str) -> None:
    """A line for people: standard error."""
    print(text, file=sys.stderr, flush=True)


def as_plain(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON mapping, with every field that has no presence, so that keys can be relied on."""
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return plain


def print_text(text: RenderableType) -> None:
    """Prints for people; where a program reads, no line ends in blanks."""
    out = console()
    if out.is_terminal:
        out.print(text)
        return
    with out.capture() as captured:
        out.print(text)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def show_one(shown: Shown, item: Message | Mapping[str, Any], text: Callable[[], RenderableType]) -> None:
    """Prints one thing."""
    match shown.output:
        case "text":
            print_text(text())
        case "json":
            write_json(_plain(item), indent=2)
        case "jsonl":
            write_json(_plain(item))


def show_many(
    shown: Shown, name: str, items: Iterable[Message | Mapping[str, Any]], text: Callable[[], RenderableType]
) -> None:
    """Prints a list: as JSON an object whose key `name` holds the items, as JSON lines an item a line."""
    match shown.output:
        case "text":
            print_text(text())
        case "json":
            write_json({name: [_plain(item) for item in items]}, indent=2)
        case "jsonl":
            for item in items:
                write_json(_plain(item))


def write_json(value: object, *, indent: int | None = None) -> None:
    """Writes a JSON document and a line end to standard output."""
    print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> RenderableType:
    """A table without lines; the columns named in `right` hold numbers. Cells are markup.

    The most telling columns come first: on a narrow terminal the last ones are left out.
    """
    return _Table(headings, list(rows), right)


class _Table:
    """Shows whole columns only: a shortened id cannot be given to the next command."""

    def __init__(self, headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
        self._headings = headings
        self._rows = rows
        self._right = right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        shown = self._fitting(options.max_width)
        made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold dim")
        for heading in self._headings[:shown]:
            made.add_column(heading, justify="right" if heading in self._right else "left", no_wrap=True)
        for row in self._rows:
            made.add_row(*row[:shown])
        yield made

    def _fitting(self, width: int) -> int:
        """How many columns have room, at least one."""
        from rich.text import Text

        ends = accumulate(
            max(Text.from_markup(cell).cell_len for cell in column) + _GAP
            for column in zip(self._headings, *self._rows, strict=True)
        )
        return max(1, sum(end - _GAP <= width for end in ends))


def facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Names and values of one thing, a line each; empty values are left out. Cells are markup."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value:
            made.add_row(name, value)
    return made


def _plain(item: Message | Mapping[str, Any]) -> Mapping[str, Any]:
    return item if isinstance(item, Mapping) else as_plain(item)
