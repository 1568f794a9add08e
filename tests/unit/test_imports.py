"""What a daemon imports, and what it leaves alone."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys

import pytest

from hivefold.imports import lean_imports

_LARGE = ("rich", "numpy", "onnxruntime", "cyclopts", "pynvml", "google.protobuf.descriptor_pb2", "opentelemetry.sdk")
"""None of them is needed by a daemon at rest; together they would double its memory."""


@pytest.mark.parametrize("daemon", ["coordinator", "node"])
def test_a_daemon_at_rest_has_imported_nothing_large(daemon: str) -> None:
    """Its memory at rest and the time until it serves are mostly those of its imports."""
    program = (
        "from hivefold.imports import lean_imports\n"
        "with lean_imports():\n"
        f"    import {daemon}.app\n"
        f"import sys; print(sorted({set(_LARGE)!r} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"


def test_what_is_left_alone_can_be_imported_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is hidden while a daemon's code is imported, from nobody later; and the collector works again."""
    monkeypatch.delitem(sys.modules, "rich", raising=False)
    with lean_imports():
        assert not gc.isenabled()
        with pytest.raises(ImportError):
            importlib.import_module("rich")

    assert gc.isenabled()
    assert importlib.import_module("rich").__name__ == "rich"
