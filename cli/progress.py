"""How far something is: a bar with rate and remaining time on a terminal's standard error, nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli import words
from cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A bar for work that is counted in `unit`; "bytes" are shown as sizes. Use it as a context manager."""

    def __init__(self, title: str, unit: str) -> None:
        self._unit = unit
        self._progress = _progress() if sys.stderr.isatty() else None
        if self._progress is not None:
            self._task = self._progress.add_task(title, total=None, told="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: float, total: float | None, *, extra: str = "") -> None:
        """Shows that `done` of `total` (None while that is not known) is done, and `extra` beside it."""
        if self._progress is None:
            return
        self._progress.update(self._task, completed=done, total=total)
        speed = self._progress.tasks[0].speed
        told = [self._counted(done, total), self._rate(speed) if speed else "", extra]
        self._progress.update(self._task, told="  ".join(part for part in told if part))

    def _counted(self, done: float, total: float | None) -> str:
        of = f" of {self._amount(total)}" if total else ""
        return f"{self._amount(done)}{of}{'' if self._unit == 'bytes' else f' {self._unit}'}"

    def _amount(self, value: float) -> str:
        return words.size(value) if self._unit == "bytes" else words.count(value)

    def _rate(self, speed: float) -> str:
        return f"{words.size(speed)}/s" if self._unit == "bytes" else words.rate(speed, self._unit)


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(finished_text="[green]done[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/]"),
        TimeRemainingColumn(),
        console=console(sys.stderr),
        transient=True,
    )
