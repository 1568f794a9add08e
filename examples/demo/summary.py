"""What the demo tells at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from examples.demo.ledger import Ledger

THE_JOB = "the job"
"""The step whose time is told in parts."""
_BAR = 30


@dataclass(frozen=True)
class Findings:
    """What was measured. Digests are of the coordinator's state."""

    ledger: Ledger
    accuracy: float
    live_digest: str
    replayed_digest: str
    replay_s: float
    killed_node: str
    killed_node_share: float
    killed_coordinator_share: float
    coordinator_away_s: float
    directory: Path
    steps: Sequence[tuple[str, float]]


def show(console: Console, found: Findings) -> None:
    """Prints the summary."""
    console.print()
    console.rule("[bold]what happened", style="dim")
    parts = (_facts(found), _nodes(found), _time(found), _next(found))
    for part in parts:
        console.print()
        console.print(Padding(part, (0, 2), expand=False))


def _facts(found: Findings) -> RenderableType:
    ledger = found.ledger
    once = "each done exactly once" if ledger.finished_once else "NOT each done once"
    live, replayed = found.live_digest[:12], found.replayed_digest[:12]
    same = found.live_digest == found.replayed_digest
    lines = [
        (ledger.finished_once, f"{ledger.planned_rows:,} rows in {ledger.planned_tasks:,} tasks, {once}", "by the log"),
        (True, f"{found.accuracy:.2%} of the answers are right", "against the labels"),
        (
            same,
            f"log from zero: state {replayed}" + (", as live" if same else f", NOT {live}"),
            f"{ledger.records:,} records in {found.replay_s:.2f} s",
        ),
    ]
    grid = Table.grid(padding=(0, 2))
    for good, what, how in lines:
        grid.add_row("[green]✓[/]" if good else "[red]✗[/]", what, f"[dim]{how}[/]")
    return grid


def _nodes(found: Findings) -> RenderableType:
    ledger = found.ledger
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold dim")
    for name in ("node", "tasks", "rows", "busy", "lost"):
        table.add_column(name, justify="left" if name == "node" else "right")
    table.add_column("share")
    most = max((node.rows for node in ledger.nodes.values()), default=0) or 1
    for name, node in sorted(ledger.nodes.items()):
        style = "red" if name == found.killed_node else "cyan"
        table.add_row(
            f"[{style}]{name}[/]",
            f"{node.tasks:,}",
            f"{node.rows:,}",
            f"{node.busy_us / 1e6:.1f} s",
            f"[red]{node.attempts_lost}[/]" if node.attempts_lost else "0",
            f"[{style}]{'━' * round(_BAR * node.rows / most)}[/]",
        )
    return Group(table, "", *_losses(found))


def _losses(found: Findings) -> list[str]:
    ledger = found.ledger
    killed = ledger.nodes[found.killed_node]
    given_up = f"given up after {killed.silent_ms / 1000:.1f} s of silence" if killed.lost_time_us else "not given up"
    attempts = sum(ledger.attempts.values())
    term, away_s = len(ledger.terms), found.coordinator_away_s
    coordinator = f"the coordinator was killed at {found.killed_coordinator_share:.0%}"
    lost = f"{ledger.attempts_lost} lost with their node, {ledger.attempts_failed} failed"
    return [
        f"{found.killed_node} was killed at {found.killed_node_share:.0%} and {given_up}",
        f"{coordinator}; another one led after {away_s:.1f} s, in term {term}",
        f"{attempts:,} attempts at {ledger.planned_tasks:,} tasks: {lost}, {ledger.tasks_repeated} repeated",
    ]


def _time(found: Findings) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    longest = max(seconds for _, seconds in found.steps) or 1
    for name, seconds in found.steps:
        grid.add_row(name, f"{seconds:.1f} s", f"[cyan]{'━' * round(_BAR * seconds / longest)}[/]")
        if name == THE_JOB:
            for part, part_s in _job_parts(found, seconds):
                bar = "─" * round(_BAR * part_s / longest)
                grid.add_row(f"  {part}", f"[dim]{part_s:.1f} s[/]", f"[dim cyan]{bar}[/]")
    total = sum(seconds for _, seconds in found.steps)
    grid.add_row("[default]in all[/]", f"{total:.1f} s", "")
    return Group("[bold dim]where the time went[/]", grid)


def _job_parts(found: Findings, job_s: float) -> Sequence[tuple[str, float]]:
    """What the job's time was: working, or waiting for what the kills had broken."""
    lost_us = found.ledger.nodes[found.killed_node].lost_time_us
    before = [time_us for time_us, _ in found.ledger.finish_times_us if time_us < lost_us]
    waited_s = (lost_us - max(before)) / 1e6 if before else 0.0
    return (
        ("nodes at work", max(job_s - waited_s - found.coordinator_away_s, 0.0)),
        ("no coordinator (nodes go on)", found.coordinator_away_s),
        (f"only {found.killed_node}'s tasks left", waited_s),
    )


def _next(found: Findings) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for command, what in (
        (f"hivefold up --dir {found.directory}", "this fleet again, as it was"),
        (f"export HIVEFOLD_DIR={found.directory}", "then, in another terminal:"),
        (f"hivefold job show {found.ledger.job_id}", "the job"),
        ("hivefold log tail", "why each task went where"),
        ("hivefold log replay", "the same digest again"),
        ("hivefold top", "the fleet, live"),
    ):
        grid.add_row(f"[cyan]{command}[/]", f"[dim]{what}[/]")
    return Group("[bold dim]try next[/] [dim](the program is .venv/bin/hivefold)[/]", grid)
