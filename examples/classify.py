"""Run the rows of a file through a model, without asyncio and in few lines.

    python -m examples.classify digits data/rows.npy

Finds the fleet as the command line does: HIVEFOLD_ADDRESS, HIVEFOLD_DIR, ./.hivefold.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hivefold.client import connect
from hivefold.errors import HivefoldError


def main() -> int:
    """The command line."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    model, rows = sys.argv[1], Path(sys.argv[2])
    try:
        with connect() as fleet:
            job = fleet.jobs.run_infer(model, rows)
            output = rows.with_suffix(".out.npz")
            fleet.jobs.download_output(job.job_id, output)
    except HivefoldError as error:
        print(error.message, file=sys.stderr)
        return 1
    with np.load(output) as tensors:
        for name, values in tensors.items():
            print(f"{name}: {values.dtype} {values.shape}, the first of them {values[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
