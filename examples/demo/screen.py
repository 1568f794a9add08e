"""What the demo shows: a spinner and a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_WIDTH = 100
PLAIN_STEP = 0.25
"""Progress is a line for each quarter where there is no terminal."""


@dataclass
class Step:
    """A step under way: what came of it and how long it took."""

    result: str = ""
    seconds: float = 0.0


class Bar:
    """The job's progress; `say` puts a line above it."""

    def __init__(self, console: Console, rows: int) -> None:
        self._console = console
        self._rows = rows
        self._next_line = PLAIN_STEP
        self._began = time.monotonic()
        self._progress = Progress(
            TextColumn("  "),
            BarColumn(bar_width=40, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=rows, note="")

    @contextmanager
    def shown(self) -> Iterator[Bar]:
        """Shows it until the block ends."""
        with self._progress:
            yield self

    def advance_to(self, rows: int) -> None:
        """So many rows are done."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        self._progress.update(self._task, completed=rows, note=f"{rows / seconds:,.0f} rows/s")
        if not self._console.is_terminal and rows >= self._next_line * self._rows:
            self._console.print(f"    {rows / self._rows:4.0%}  {rows:,} rows")
            self._next_line = rows / self._rows // PLAIN_STEP * PLAIN_STEP + PLAIN_STEP

    def say(self, text: str) -> None:
        """A line of markup above the bar."""
        self._progress.console.print(f"    {text}")


class Screen:
    """The console of the demo."""

    def __init__(self, console: Console | None = None) -> None:
        made = console or Console(highlight=False)
        self.console = made if made.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, file=made.file)
        self.steps: list[tuple[str, float]] = []
        """Name and seconds of each step so far."""

    @contextmanager
    def step(self, doing: str, name: str) -> Iterator[Step]:
        """One step: `doing` is shown while it lasts, then its result. `name` stands in the summary."""
        step = Step()
        began = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(f"{doing} …", spinner="dots"):
                yield step
        else:
            yield step
        step.seconds = time.monotonic() - began
        self.steps.append((name, step.seconds))
        self.console.print(f"  [green]✓[/] {step.result or doing}  [dim]{step.seconds:.1f} s[/]")

    @contextmanager
    def job(self, doing: str, name: str, rows: int) -> Iterator[Bar]:
        """The job: a bar while it lasts."""
        began = time.monotonic()
        self.console.print(f"  [cyan]▸[/] {doing}")
        with Bar(self.console, rows).shown() as bar:
            yield bar
        self.steps.append((name, time.monotonic() - began))
