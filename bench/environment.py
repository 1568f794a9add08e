"""The peers' own environment: made once, checked each time."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.contender import ROOT

PEERS: Final = ("ray==2.60.*", "distributed==2026.8.*", "eventsourcing==9.5.*")
OURS: Final = Path(sys.executable)
THEIRS: Final = ROOT / ".bench-venv" / "bin" / "python"
_MADE: Final = ROOT / ".bench-venv" / "made-for"
_SHOWN: Final = ("grpcio", "protobuf", "nats-py", "numpy", "onnxruntime", "uvloop", "pykka")
_VERSIONS: Final = """
import importlib.metadata, json
names = ["ray", "distributed", "eventsourcing"]
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


def prepare_peers() -> None:
    """Makes .bench-venv with the peers; does nothing when it is there already."""
    wanted = "\n".join((*PEERS, platform.python_version()))
    if _MADE.exists() and _MADE.read_text(encoding="utf-8") == wanted and THEIRS.exists():
        return
    print(f"installing {', '.join(PEERS)} into .bench-venv", flush=True)
    folder = THEIRS.parents[1]
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("uv"):
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", THEIRS, *PEERS], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([THEIRS, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS], check=True)
    _MADE.write_text(wanted, encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"hivefold": importlib.metadata.version("hivefold"), "python": platform.python_version()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        found["hivefold"] += f" at {commit.stdout.strip()}"
    found |= {name: importlib.metadata.version(name) for name in _SHOWN}
    if THEIRS.exists():
        asked = subprocess.run([THEIRS, "-c", _VERSIONS], capture_output=True, text=True, check=True)
        found |= json.loads(asked.stdout)
    return found


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {kernel}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
