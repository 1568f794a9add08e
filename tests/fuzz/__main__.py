"""`make fuzz SECONDS=60 TARGET=request`: fuzzes what reads foreign bytes; by coverage where Atheris is installed."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

from hivefold.memory import peak_resident_bytes
from tests.fuzz.mutation import files
from tests.fuzz.target import TARGETS, Target


def guided(target: Target, seconds: int) -> int:
    """Atheris (libFuzzer) over the fixtures as its corpus. Ends the process."""
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    corpus = Path(tempfile.mkdtemp(prefix="hivefold-fuzz-"))
    for index, path in enumerate(target.corpus):
        (corpus / str(index)).write_bytes(path.read_bytes())
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=65536", "-timeout=20"], target.take
    )
    atheris.Fuzz()
    return 0


def plain(target: Target, seconds: int, seed: int) -> int:
    """Mutants of the fixtures; the first that raises is kept in a file that is named."""
    began, slowest, count = time.monotonic(), 0.0, 0
    for content in files(target.corpus, seed):
        start = time.monotonic()
        try:
            target.take(content)
        except Exception:
            kept = Path(tempfile.gettempdir(), f"hivefold-fuzz-{seed}-{count}")
            kept.write_bytes(content)
            print(f"mutant {count} of seed {seed} raises; it is in {kept}", file=sys.stderr)
            raise
        count += 1
        slowest = max(slowest, time.monotonic() - start)
        if time.monotonic() - began > seconds:
            break
    memory = peak_resident_bytes() >> 20
    print(f"{count} files in {seconds} s, the slowest {slowest * 1000:.0f} ms, {memory} MiB resident at most")
    return 0


def main() -> int:
    """Runs one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", choices=TARGETS, default="passport")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris"):
        return guided(TARGETS[given.target], given.seconds)
    return plain(TARGETS[given.target], given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main())
