"""Run the rows of a file through a model, without asyncio and in few lines.

    python -m examples.classify digits data/rows.npy

Finds the fleet as the command line does: HIVEFOLD_ADDRESS, HIVEFOLD_DIR, ./.hivefold.
"""

from __future__ import annotations

import sys

from hivefold.client import HivefoldError, connect


def main() -> int:
    """The command line."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    model, rows = sys.argv[1:]
    try:
        with connect() as fleet:
            outputs = fleet.submit(model, rows).outputs()
    except HivefoldError as error:
        print(error.message, file=sys.stderr)
        return 1
    for name, values in outputs.items():
        print(f"{name}: {values.dtype} {values.shape}, the first of them {values[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
