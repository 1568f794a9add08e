"""Generated code is what the generator makes of the protos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tidy.source import GENERATED, ROOT


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_stubs_are_generated_from_the_protos(tmp_path: Path) -> None:
    """hivefold/v1 and hivefold/oip hold exactly what scripts/gen_protos.py makes: `make protos` renews them."""
    program = f"import gen_protos, pathlib; gen_protos.generate(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "scripts", check=True)

    made, kept = contents(tmp_path / "hivefold" / "v1"), contents(GENERATED)
    descriptors = Path("hivefold", "oip", "open_inference.binpb")

    assert sorted(made) == sorted(kept)
    assert [name for name in made if made[name] != kept[name]] == []
    assert (tmp_path / descriptors).read_bytes() == (ROOT / descriptors).read_bytes()
