"""python -m examples.demo [--dir DIR] [--rows N]"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from examples.demo.fleet import DemoError
from examples.demo.screen import Screen
from examples.demo.story import tell
from examples.demo.summary import show
from hivefold.errors import HivefoldError


def main() -> int:
    """The command line; 0 when all that was claimed was found."""
    parser = argparse.ArgumentParser(description="A durable job on a fleet of three nodes, with two kills.")
    parser.add_argument("--dir", type=Path, default=Path(".hivefold") / "demo", help="emptied first if a demo made it")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to classify")
    arguments = parser.parse_args()
    screen = Screen()
    screen.console.print("\n[bold]hivefold[/]  a job, two kills, and the log that survives them\n")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = asyncio.run(tell(screen, arguments.dir, arguments.rows))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (DemoError, HivefoldError, TimeoutError) as error:
        print(f"\nthe demo failed: {str(error) or 'a step took too long'}", file=sys.stderr)
        print(f"what the processes said: {arguments.dir / 'logs'}", file=sys.stderr)
        return 1
    show(screen.console, found)
    claims = (found.ledger.finished_once, found.ledger.succeeded, found.live_digest == found.replayed_digest)
    return 0 if all(claims) else 1


if __name__ == "__main__":
    sys.exit(main())
