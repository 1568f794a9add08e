"""Batch inference: a file of rows in, a file of answers out, against one process without a fleet."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.contender import ROOT, Contender, ContenderError
from bench.context import Context
from bench.floors import writes
from bench.results import Better, Measure, Section, Target
from bench.statistics import ratios

KEY: Final = "inference"
TITLE: Final = "Batch inference"
_ROWS: Final = 2_000_000
_WARM_ROWS: Final = 20_000
_TRIAL_ROWS: Final = 200_000
_HEAVY_TRIAL_ROWS: Final = 2000
_HEAVY_S: Final = 32.0
_BATCHES: Final = (512, 2048, 8192, 32_768)
_HEAVY_BATCHES: Final = (64, 256, 1024)
_ONE_PROCESS: Final = "one process"
_WRITE_BYTES: Final = 512 << 20
_CHUNK_BYTES: Final = 960 << 10
_HOW: Final = f"""\
{_ROWS:,} rows of 64 float32 (512 MB) through the digits classifier, from submit to the finished .npz with all its
outputs: through blobs (the file is uploaded first, and every byte of it is stored with fsync) and by path (the nodes
read the file, verified against its digest). hivefold runs one node a core with one thread each. Against it one process
maps the same file, calls ONNX Runtime with as many threads in all, in batches of the size that suits it best, and
writes the same .npz. Both have the model loaded; both outputs are compared. Then a compute-heavy model over as many
rows as keep one process busy for half a minute. A fresh fleet in each round: nothing is stored from before."""


@dataclass(frozen=True, slots=True)
class _Files:
    """A model, its rows, a few rows to warm up with, and where outputs go."""

    model: Path
    rows: Path
    warm: Path
    ours: Path
    theirs: Path


class _Rates:
    """Rows a second by who did it, and the parts of hivefold's times in seconds."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = defaultdict(list)
        self.parts: dict[str, list[float]] = defaultdict(list)

    def take(self, who: str, answer: dict[str, Any]) -> None:
        self.rows[who].append(answer["rows"] / answer["seconds"])
        for part in ("submit_s", "compute_s", "download_s"):
            if part in answer:
                self.parts[f"{who}: {part.removesuffix('_s')}"].append(answer[part])


def run(context: Context) -> Section:
    """The light model through blobs and by path, then the heavy one, each against one process."""
    light_files = _make_light(context)
    light = _light(context, light_files)
    heavy, row_ms = _heavy(context, light_files)
    disk = [writes(context.workplace, _WRITE_BYTES, chunk_bytes=_CHUNK_BYTES) / 1e6 for _ in range(context.rounds)]
    return Section(KEY, TITLE, _HOW, _targets(light, heavy), _measures(light, heavy, row_ms, disk))


def _make_light(context: Context) -> _Files:
    folder = context.workplace / "digits"
    _python("examples.digits", folder, "--rows", _ROWS)
    warm = folder / "warm.npy"
    _head(folder / "rows.npy", warm, _WARM_ROWS)
    context.say("trained the classifier and made the rows")
    return _Files(folder / "digits.onnx", folder / "rows.npy", warm, folder / "ours.npz", folder / "theirs.npz")


def _light(context: Context, files: _Files) -> _Rates:
    rates = _Rates()
    batch, _ = _best_batch(context, files, _BATCHES, _TRIAL_ROWS)
    for at in range(context.rounds):
        with context.ours("hivefold_infer", context.workplace, context.cores) as contender:
            _add(contender, files)
            rates.take("through blobs", _infer(contender, files, by_reference=False))
            rates.take("by path", _infer(contender, files, by_reference=True))
        with context.ours("onnx_process", files.model, context.cores) as contender:
            _alone(contender, files, batch, _TRIAL_ROWS)
            rates.take(_ONE_PROCESS, _alone(contender, files, batch))
        _compare(files)
        context.say(f"round {at + 1}: " + _told(rates))
    return rates


def _make_heavy(context: Context, light: _Files) -> tuple[_Files, int]:
    """The model with as many rows as take half a minute at the best, and the best batch size of one process."""
    folder = context.workplace / "heavy"
    folder.mkdir()
    _python("examples.heavy_model", folder / "heavy.onnx")
    files = _Files(
        folder / "heavy.onnx", folder / "rows.npy", folder / "warm.npy", folder / "ours.npz", folder / "theirs.npz"
    )
    _head(light.rows, files.rows, _HEAVY_TRIAL_ROWS)
    _head(light.rows, files.warm, 64 * context.cores)
    batch, seconds = _best_batch(context, files, _HEAVY_BATCHES, _HEAVY_TRIAL_ROWS)
    rows = max(_HEAVY_TRIAL_ROWS, int(_HEAVY_S * _HEAVY_TRIAL_ROWS / seconds))
    _head(light.rows, files.rows, rows)
    context.say(f"made a compute-heavy model; {rows:,} rows of it take about {_HEAVY_S:g} s")
    return files, batch


def _heavy(context: Context, light: _Files) -> tuple[_Rates, list[float]]:
    """The rates, and the milliseconds that one core takes for a row."""
    rates = _Rates()
    files, batch = _make_heavy(context, light)
    with context.ours("onnx_process", files.model, 1) as contender:
        alone = _alone(contender, files, batch, _HEAVY_TRIAL_ROWS)
    for at in range(context.rounds):
        with context.ours("hivefold_infer", context.workplace, context.cores) as contender:
            _add(contender, files)
            rates.take("by path", _infer(contender, files, by_reference=True))
        with context.ours("onnx_process", files.model, context.cores) as contender:
            _alone(contender, files, batch, _HEAVY_TRIAL_ROWS)
            rates.take(_ONE_PROCESS, _alone(contender, files, batch))
        _compare(files)
        context.say(f"round {at + 1}, heavy: " + _told(rates))
    return rates, [1000 * alone["seconds"] / alone["rows"]]


def _add(contender: Contender, files: _Files) -> None:
    contender.ask("add", file=str(files.model), name="bench", warm_rows=str(files.warm), output_file=str(files.ours))


def _infer(contender: Contender, files: _Files, *, by_reference: bool) -> dict[str, Any]:
    return contender.ask(
        "infer",
        model="bench",
        rows_file=str(files.rows),
        output_file=str(files.ours),
        by_reference=by_reference,
    )


def _alone(contender: Contender, files: _Files, batch_rows: int, limit_rows: int = 0) -> dict[str, Any]:
    return contender.ask(
        "infer",
        rows_file=str(files.rows),
        output_file=str(files.theirs),
        batch_rows=batch_rows,
        limit_rows=limit_rows,
    )


def _best_batch(context: Context, files: _Files, sizes: Sequence[int], rows: int) -> tuple[int, float]:
    """The batch size with which one process is fastest, and its seconds."""
    with context.ours("onnx_process", files.model, context.cores) as contender:
        found = {size: min(_alone(contender, files, size, rows)["seconds"] for _ in range(2)) for size in sizes}
    best = min(found, key=lambda size: found[size])
    return best, found[best]


def _compare(files: _Files) -> None:
    """Both outputs hold the same arrays, but for the last bits of a float."""
    with np.load(files.ours, allow_pickle=False) as ours, np.load(files.theirs, allow_pickle=False) as theirs:
        if set(ours) != set(theirs):
            raise ContenderError(f"outputs differ: {sorted(ours)} against {sorted(theirs)}")
        for name in theirs:
            near = np.isclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
            if near.shape != theirs[name].shape or np.count_nonzero(near) < 0.9999 * near.size:
                raise ContenderError(f"output {name} differs between hivefold and one process")


def _head(source: Path, target: Path, rows: int) -> None:
    np.save(target, np.load(source, mmap_mode="r", allow_pickle=False)[:rows])


def _python(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _told(rates: _Rates) -> str:
    return ", ".join(f"{who} {found[-1]:,.0f} rows/s" for who, found in rates.rows.items())


def _targets(light: _Rates, heavy: _Rates) -> tuple[Target, ...]:
    def against_one(rates: _Rates, who: str) -> tuple[float, ...]:
        return ratios(rates.rows[who], rates.rows[_ONE_PROCESS])

    light_name, heavy_name = "digits, 2 million rows", "compute-heavy model"
    return (
        Target(
            f"{light_name} through blobs, over one process", "x", against_one(light, "through blobs"), 0.35, Better.MORE
        ),
        Target(f"{light_name} by path, over one process", "x", against_one(light, "by path"), 0.6, Better.MORE),
        Target(f"{heavy_name}, over one process", "x", against_one(heavy, "by path"), 0.9, Better.MORE),
    )


def _measures(light: _Rates, heavy: _Rates, row_ms: list[float], disk: list[float]) -> tuple[Measure, ...]:
    found: list[Measure] = []
    for name, rates in (("digits", light), ("heavy", heavy)):
        for who, values in rates.rows.items():
            owner, how = (who, "") if who == _ONE_PROCESS else ("hivefold", f" {who}")
            found.append(Measure(f"{name}{how}, rows a second", owner, "/s", tuple(values), Better.MORE))
        for part, seconds in rates.parts.items():
            found.append(Measure(f"{name} {part}", "hivefold", "s", tuple(seconds), Better.LESS))
    found.append(Measure("heavy, one row on one core", _ONE_PROCESS, "ms", tuple(row_ms), Better.LESS))
    found.append(
        Measure("writing 512 MB, fsync every 960 KiB as blobs are stored", "floor", "MB/s", tuple(disk), Better.MORE)
    )
    return tuple(found)
