"""Writes the model and rows to classify into a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from examples.digits.data import load, make_rows
from examples.digits.training import export, train


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the digits classifier and make rows to classify.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    trained = train(load())
    export(trained, arguments.folder / "digits.onnx")
    print(f"trained in {time.monotonic() - start:.1f} s: {trained.held_out_accuracy:.1%} of the held-out digits")
    make_rows(arguments.rows, arguments.seed, arguments.folder / "rows.npy", arguments.folder / "labels.npy")
    print(f"wrote digits.onnx, rows.npy and labels.npy to {arguments.folder}")


if __name__ == "__main__":
    main()
