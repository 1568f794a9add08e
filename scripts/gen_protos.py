"""Generates stubs under hivefold/v1 and the descriptors of hivefold/oip from protos/. Offline; run by `make protos`."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
OPEN_INFERENCE = "inference/open_inference.proto"
"""No stubs for it: they would claim its names in the descriptor pool that all libraries of a process share."""


def generate(out: Path) -> None:
    """Writes the stubs of every proto under protos/ below `out`."""
    protos = sorted(str(p.relative_to(ROOT / "protos")) for p in (ROOT / "protos" / "hivefold").rglob("*.proto"))
    scripts = Path(sysconfig.get_path("scripts"))
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    descriptors = out / "hivefold" / "oip" / "open_inference.binpb"
    descriptors.parent.mkdir(parents=True, exist_ok=True)
    if protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"--descriptor_set_out={descriptors}", OPEN_INFERENCE]) != 0:
        sys.exit("protoc failed")
    for package in {(out / p).parent for p in protos}:
        (package / "__init__.py").write_text('"""Generated from protos/; never edited."""\n')
    # A service-less proto leaves an empty grpc stub: noise nobody imports.
    for stub in (out / "hivefold").rglob("*_pb2_grpc.py"):
        if not stub.name.endswith("_service_pb2_grpc.py"):
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


if __name__ == "__main__":
    shutil.rmtree(ROOT / "hivefold" / "v1", ignore_errors=True)
    generate(ROOT)
