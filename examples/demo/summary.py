"""What the demo tells at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from examples.demo.ledger import Ledger

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
    console.print(Padding(Group(*(Padding(part, (1, 0, 0, 0)) for part in parts)), (0, 2)))


def _facts(found: Findings) -> RenderableType:
    ledger = found.ledger
    once = f"all {ledger.planned_tasks:,} tasks finished exactly once" if ledger.finished_once else "NOT once each"
    same = found.live_digest == found.replayed_digest
    lines = [
        (ledger.finished_once, f"{ledger.planned_rows:,} rows, {once}", "counted from the log's events"),
        (True, f"{found.accuracy:.2%} of the answers are right", "the output file against the true labels"),
        (
            same,
            f"state digest {found.replayed_digest[:16]} replayed {'=' if same else '≠'} {found.live_digest[:16]} live",
            f"{ledger.records:,} records from zero in {found.replay_s:.2f} s",
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
    lost = ledger.nodes[found.killed_node]
    given_up = f"given up after {lost.silent_ms / 1000:.1f} s of silence" if lost.lost_time_us else "not given up"
    attempts = sum(ledger.attempts.values())
    term, away_s = len(ledger.terms), found.coordinator_away_s
    coordinator = f"the coordinator was killed at {found.killed_coordinator_share:.0%}"
    ended = f"{ledger.attempts_lost} lost with their node, {ledger.attempts_failed} failed"
    return [
        f"{found.killed_node} was killed at {found.killed_node_share:.0%} and {given_up}",
        f"{coordinator}; another one led after {away_s:.1f} s, in term {term}",
        f"{attempts:,} attempts for {ledger.planned_tasks:,} tasks: {ended}, {ledger.tasks_repeated} tasks repeated",
    ]


def _time(found: Findings) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    longest = max(seconds for _, seconds in found.steps) or 1
    for name, seconds in found.steps:
        grid.add_row(name, f"{seconds:.1f} s", f"[cyan]{'━' * round(_BAR * seconds / longest)}[/]")
    total = sum(seconds for _, seconds in found.steps)
    grid.add_row("[default]in all[/]", f"{total:.1f} s", "")
    return Group("[bold dim]where the time went[/]", grid)


def _next(found: Findings) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    place = f"--dir {found.directory}"
    for command, what in (
        (f"hivefold up {place}", "start this fleet again, with all that it knows"),
        (f"export HIVEFOLD_DIR={found.directory}", "then, in another terminal:"),
        (f"hivefold job show {found.ledger.job_id}", "the job"),
        ("hivefold log tail", "why each task went where it went"),
        ("hivefold log replay", "the same digest again"),
        ("hivefold top", "the fleet, live"),
    ):
        grid.add_row(f"[cyan]{command}[/]", f"[dim]{what}[/]")
    return Group("[bold dim]try next[/] [dim](the program is .venv/bin/hivefold)[/]", grid)
