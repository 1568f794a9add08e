"""What proving the log costs: appending with and without, exporting and verifying a file, and how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.broker import embedded_server, log_of
from bench.contender import ROOT, ContenderError
from bench.context import Context
from bench.restarting import configured, running_coordinator
from bench.results import Better, Measure, Section, Target
from bench.statistics import bootstrapped, ratios

KEY: Final = "proof"
TITLE: Final = "A log that proves itself"
_PAIRS: Final = 30
_RECORDS: Final = 5_000
_AT_ONCE: Final = 500
_PEER_RECORDS: Final = 20_000
_SHORT: Final = 200_000
_LONGER: Final = 4
_SIGNED_EACH: Final = 1000
_EXPORTED: Final = 50_000
_EVENTS: Final = 50_000
_MOST_GROWTH_BYTES: Final = 10_000_000
_HOW: Final = f"""\
A coordinator's writer records decisions that cost next to nothing (drain, undrain; {_AT_ONCE} waiting at any time) on
a nats-server with fsync always, in short turns of {_RECORDS:,} records: with hash chain, Merkle tree and a checkpoint
that is signed in each turn, and in the next as the same code without any of them (every hash zeros, nothing signed),
the same process and log, {_PAIRS} pairs of turns a round. What proofs cost is taken pair by pair; the brackets of
these figures hold the 95 % interval of the median (bootstrap). Then files: signed logs of {_SHORT:,} records and of
{_LONGER} times as many, a checkpoint after every {_SIGNED_EACH:,}, verified in fresh processes; and logs of
{_EXPORTED:,} records and of {_LONGER} times as many, exported from a live coordinator with `log export`. Memory
is the peak of the whole process. Beside it eventsourcing on SQLite: append, {_AT_ONCE} events a save, and replay,
neither of them proven."""


@dataclass(slots=True)
class _Found:
    """What was measured, round by round."""

    proven_us: list[float] = field(default_factory=list)
    unproven_us: list[float] = field(default_factory=list)
    proven_busy_us: list[float] = field(default_factory=list)
    unproven_busy_us: list[float] = field(default_factory=list)
    verified: list[float] = field(default_factory=list)
    verify_peaks: dict[int, list[float]] = field(default_factory=dict)
    exported: list[float] = field(default_factory=list)
    export_peaks: dict[int, list[float]] = field(default_factory=dict)
    appended_by_peer: list[float] = field(default_factory=list)
    replayed_by_peer: list[float] = field(default_factory=list)

    @property
    def cost(self) -> tuple[float, float, float]:
        """Per cent of the append throughput that chain and checkpoints take: turn by turn, median and interval."""
        return bootstrapped([100 * (1 - ratio) for ratio in ratios(self.unproven_us, self.proven_us)])

    @property
    def busy_cost(self) -> tuple[float, float, float]:
        """Per cent of processor time a record that they add."""
        return bootstrapped([100 * (ratio - 1) for ratio in ratios(self.proven_busy_us, self.unproven_busy_us)])


def run(context: Context) -> Section:
    """Appends in turns; then writes, exports and verifies logs of two lengths."""
    found = _Found()
    for at in range(context.rounds):
        _append(context, found, at)
        low, cost, high = found.cost
        context.say(f"after round {at + 1}: chain and checkpoints cost {cost:.1f} % ({low:.1f} - {high:.1f})")
    for factor in (1, _LONGER):
        _verify(context, found, factor)
        _export(context, found, factor)
    with context.theirs("eventsourcing_log", context.workplace) as contender:
        for _ in range(context.rounds):
            appended = contender.ask("append", batches=_PEER_RECORDS // _AT_ONCE, size=_AT_ONCE)
            found.appended_by_peer.append(_PEER_RECORDS / appended["seconds"])
            found.replayed_by_peer.append(_EVENTS / contender.ask("replay", events=_EVENTS)["seconds"])
    return Section(KEY, TITLE, _HOW, _targets(found), _measures(found))


def _append(context: Context, found: _Found, at: int) -> None:
    """Pairs of turns on a server of their own."""
    folder = context.workplace / f"append-{at}"
    with embedded_server(folder / "nats") as server, context.ours("hivefold_proof") as contender:
        answer = contender.ask(
            "append",
            directory=str(folder),
            pairs=_PAIRS,
            each=_RECORDS // _AT_ONCE // 2,
            at_once=_AT_ONCE,
            nodes_user=server.nodes.user,
            nodes_password=server.nodes.password.reveal(),
            **log_of(server),
        )
    found.proven_us += answer["proven"]["us"]
    found.unproven_us += answer["unproven"]["us"]
    found.proven_busy_us += answer["proven"]["busy_us"]
    found.unproven_busy_us += answer["unproven"]["busy_us"]


def _verify(context: Context, found: _Found, factor: int) -> None:
    path, peaks = str(context.workplace / f"signed-{factor}.hflog"), found.verify_peaks.setdefault(factor, [])
    with context.ours("hivefold_proof") as contender:
        contender.ask("write", path=path, records=factor * _SHORT, each=_SIGNED_EACH)
    for _ in range(context.rounds if factor == 1 else 1):
        with context.ours("hivefold_proof") as contender:
            answer = contender.ask("verify", path=path)
        rate = answer["records"] / answer["seconds"]
        context.say(f"verified {answer['records']:,} records: {rate:,.0f}/s")
        peaks.append(answer["peak_bytes"])
        if factor == 1:
            found.verified.append(rate)


def _export(context: Context, found: _Found, factor: int) -> None:
    folder = context.workplace / f"export-{factor}"
    with embedded_server(folder / "nats") as server:
        with context.ours("hivefold_log") as contender:
            contender.ask("fill", transitions=2 * factor * _EXPORTED, job_tasks=3000, at_once=1, **log_of(server))
        config = configured(server, folder)
        address = f"127.0.0.1:{tomllib.loads(config.read_text(encoding='utf-8'))['port']}"
        with running_coordinator(config):
            for at in range(context.rounds if factor == 1 else 1):
                _take_export(found, factor, *_exported(folder / f"{at}.hflog", address))
    context.say(f"exported, peak {max(found.export_peaks[factor]) / 1e6:.0f} MB")


def _take_export(found: _Found, factor: int, answer: dict[str, Any], seconds: float, peak: float) -> None:
    found.export_peaks.setdefault(factor, []).append(peak)
    if factor == 1:
        found.exported.append(int(answer["recordCount"]) / seconds)


def _exported(path: Path, address: str) -> tuple[dict[str, Any], float, float]:
    """What the command says, how long it took from its start to its end, and its peak memory in bytes."""
    command = [sys.executable, "-m", "bench.contenders.command", "log", "export", str(path), "--address", address]
    began = os.times().elapsed
    done = subprocess.run([*command, "-o", "json"], cwd=ROOT, capture_output=True, check=False)
    seconds = os.times().elapsed - began
    if done.returncode:
        raise ContenderError(f"hivefold log export ended with {done.returncode}")
    return json.loads(done.stdout), seconds, float(done.stderr.split()[-1])


def _targets(found: _Found) -> tuple[Target, ...]:
    growth = [max(peaks[_LONGER]) - max(peaks[1]) for peaks in (found.export_peaks, found.verify_peaks)]
    return (
        Target("append throughput that chain and checkpoints cost", "%", found.cost, 10, Better.LESS),
        Target("records verified a second, from a file", "/s", tuple(found.verified), 60_000, Better.MORE),
        Target(
            f"memory that a log {_LONGER} times as long adds (live export, verify)",
            "MB",
            tuple(each / 1e6 for each in growth),
            _MOST_GROWTH_BYTES / 1e6,
            Better.LESS,
        ),
    )


def _measures(found: _Found) -> tuple[Measure, ...]:
    ours, most, less = "hivefold", Better.MORE, Better.LESS
    peaks = [
        Measure(f"peak memory, {name}", ours, "MB", tuple(each / 1e6 for each in values), less, f"{records:,} records")
        for name, base, by_factor in (("verify", _SHORT, found.verify_peaks), ("export", _EXPORTED, found.export_peaks))
        for factor, values in by_factor.items()
        for records in (factor * base,)
    ]
    return (
        Measure("records a second, with proofs", ours, "/s", _rates(found.proven_us), most),
        Measure("records a second, without", "without proofs", "/s", _rates(found.unproven_us), most),
        Measure("processor time a record, with proofs", ours, "us", bootstrapped(found.proven_busy_us), less),
        Measure("processor time a record, without", "without proofs", "us", bootstrapped(found.unproven_busy_us), less),
        Measure("processor time that the proofs add", ours, "%", found.busy_cost, less),
        Measure("records verified a second", ours, "/s", tuple(found.verified), most, "file"),
        Measure("records exported a second, start to end of the command", ours, "/s", tuple(found.exported), most),
        *peaks,
        Measure("events appended a second", "eventsourcing", "/s", tuple(found.appended_by_peer), most),
        Measure("events replayed a second", "eventsourcing", "/s", tuple(found.replayed_by_peer), most),
    )


def _rates(each_us: list[float]) -> tuple[float, float, float]:
    """Records a second, by the microseconds that each took."""
    return bootstrapped([1e6 / us for us in each_us])
