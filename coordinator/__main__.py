"""`python -m coordinator --config FILE`: one coordinator, as `hivefold up` starts it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hivefold.imports import lean_imports


def main() -> int:
    """Reads the configuration and runs; 2 when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m coordinator")
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    with lean_imports():
        from coordinator.app import run
        from hivefold.config import load_coordinator_config
        from hivefold.errors import ConfigError
    try:
        config = load_coordinator_config({}, os.environ, arguments.config)
    except ConfigError as error:
        print(f"hivefold coordinator: {error.message}", file=sys.stderr)
        return 2
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
