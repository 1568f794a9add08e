"""python -m bench: measures everything and writes bench/RESULTS.md; with --only a part, to the screen or kept."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Final

from bench.contender import ROOT, ContenderError
from bench.context import Context
from bench.environment import machine, prepare_peers, versions
from bench.report import report
from bench.results import Failed, Run, Section, compared, run_from_json, run_to_json, with_part
from bench.sections import append, audit, inference, proof, replay, restart, resting, serving, tasks

_SECTIONS: Final[dict[str, ModuleType]] = {
    section.KEY: section for section in (tasks, inference, serving, replay, append, audit, proof, restart, resting)
}
_RESULTS: Final = ROOT / "bench" / "RESULTS.md"
_RAW: Final = ROOT / "bench" / "results.json"
_ROUNDS: Final = 3
_TOLERANCE: Final = 0.15


def main() -> int:
    """The command line; 1 when something could not be measured."""
    arguments = _arguments()
    if arguments.list:
        for key, section in _SECTIONS.items():
            print(f"{key:10} {section.TITLE}")
        return 0
    run = _compared(_measure(arguments.only or list(_SECTIONS), arguments.rounds))
    if arguments.only and not arguments.keep:
        print(report(run))
    else:
        if arguments.only:
            run = with_part(run_from_json(json.loads(_RAW.read_text(encoding="utf-8"))), run)
        _RESULTS.write_text(report(run), encoding="utf-8")
        _RAW.write_text(json.dumps(run_to_json(run), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {_RESULTS.relative_to(ROOT)} and {_RAW.relative_to(ROOT)}")
    return 1 if run.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure hivefold, its peers and a floor.")
    parser.add_argument("--only", type=_keys, metavar="NAMES", help="some benchmarks, by commas; prints the result")
    parser.add_argument("--keep", action="store_true", help="with --only: put the result in place of the committed one")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="turns of each contender (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    return parser.parse_args()


def _keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in _SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(_SECTIONS)}")
    return keys


def _measure(keys: Sequence[str], rounds: int) -> Run:
    """Carries out the benchmarks; one that fails is reported, and the others go on."""
    prepare_peers()
    began, start = time.monotonic(), datetime.now(UTC)
    hardware, software = machine(), versions()
    sections: list[Section] = []
    failed: list[Failed] = []
    for key in keys:
        section = _SECTIONS[key]
        print(f"{section.TITLE}", flush=True)
        try:
            with _workplace() as workplace:
                measured = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, hivefold {software['hivefold']}, rounds: {rounds}"
                sections.append(replace(section.run(Context.of(workplace, rounds)), measured=measured))
        except (ContenderError, OSError, subprocess.SubprocessError) as error:
            print(f"  failed: {error}", flush=True)
            failed.append(Failed(key, section.TITLE, " ".join(str(error).split())[-300:]))
    return Run(
        start_time=f"{start:%Y-%m-%d %H:%M} UTC",
        duration_s=time.monotonic() - began,
        machine=hardware,
        versions=software,
        sections=tuple(sections),
        failed=tuple(failed),
    )


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder on the disk of the checkout, gone afterwards."""
    parent = ROOT / ".hivefold"
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compared(run: Run) -> Run:
    """The run with what got worse since the committed results; as it is where there are none that can be read."""
    try:
        before = run_from_json(json.loads(_RAW.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return run
    return compared(before, run, tolerance=_TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
