"""`hivefold version`."""

from __future__ import annotations

import platform

from cli.output import Shown, write_json
from hivefold.version import VERSION


def version(shown: Shown = Shown()) -> None:  # noqa: B008 - frozen
    """Print the version."""
    python = platform.python_version()
    match shown.output:
        case "text":
            print(f"hivefold {VERSION} (Python {python}, {platform.system()} {platform.machine()})")
        case "json" | "jsonl":
            write_json({"hivefold": VERSION, "python": python, "platform": platform.platform()})
