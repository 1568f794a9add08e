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

from bench.contender import ROOT, ContenderError

PEERS: Final = (
    "ray[serve]==2.60.*",
    "distributed==2026.8.*",
    "eventsourcing==9.5.*",
    "litserve==0.2.*",
    "onnxruntime==1.31.*",
)
MLSERVER_PEERS: Final = ("mlserver==1.7.*", "onnxruntime==1.31.*", "uvloop==0.23.*")
"""By itself: it wants another FastAPI than Ray Serve."""
OURS: Final = Path(sys.executable)
THEIRS: Final = ROOT / ".bench-venv" / "bin" / "python"
MLSERVER: Final = ROOT / ".bench-mlserver" / "bin" / "python"
LOAD: Final = ROOT / ".bench-venv" / "load"
_SHOWN: Final = ("grpcio", "protobuf", "nats-py", "numpy", "onnxruntime", "uvloop", "pykka")
_VERSIONS: Final = """
import importlib.metadata, json, sys
names = sys.argv[1:]
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


def prepare_peers() -> None:
    """Makes .bench-venv with the peers; does nothing when it is there already."""
    _prepare(THEIRS, PEERS)


def prepare_mlserver() -> None:
    """Makes .bench-mlserver; does nothing when it is there already."""
    _prepare(MLSERVER, MLSERVER_PEERS)


def prepare_load() -> None:
    """Builds the load generator of bench/load. Raises ContenderError where there is no Go."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise ContenderError("the load generator is written in Go, and there is no go on the PATH; install Go 1.23")
    subprocess.run([go, "build", "-o", LOAD, "."], cwd=ROOT / "bench" / "load", check=True)


def _prepare(python: Path, packages: tuple[str, ...]) -> None:
    folder = python.parents[1]
    made = folder / "made-for"
    wanted = "\n".join((*packages, platform.python_version()))
    if made.exists() and made.read_text(encoding="utf-8") == wanted and python.exists():
        return
    print(f"installing {', '.join(packages)} into {folder.name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("uv"):
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *packages], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
    made.write_text(wanted, encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"hivefold": importlib.metadata.version("hivefold"), "python": platform.python_version()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        found["hivefold"] += f" at {commit.stdout.strip()}"
    found |= {name: importlib.metadata.version(name) for name in _SHOWN}
    peers = ((THEIRS, ("ray", "distributed", "eventsourcing", "litserve")), (MLSERVER, ("mlserver",)))
    for python, names in peers:
        if python.exists():
            asked = subprocess.run([python, "-c", _VERSIONS, *names], capture_output=True, text=True, check=True)
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
