"""Inspecting runs, imports and opens nothing but the file itself: the interpreter's own audit hook says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.passports import MODELS

WATCH = """
import os, sys
from pathlib import Path
from hivefold.models.passport.inspection import passport
from hivefold.errors import DataRefusedError

root, hostile = Path(sys.argv[1]), Path(sys.argv[2])
paths = [*sorted(root.iterdir()), *sorted(hostile.iterdir())]
for path in sorted(root.iterdir()):  # what is imported late is imported now; not what a hostile file asks for
    passport(path)
seen, watching = [], False

def hook(event, arguments):
    if not watching:
        return
    if event in {"open", "os.listdir", "os.scandir"}:
        if isinstance(arguments[0], int):
            return  # a descriptor that is open already gets a file object
        if not str(arguments[0]).startswith((str(root), str(hostile))):
            seen.append((event, repr(arguments[0])))
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append((event, "for writing"))
    elif event not in ALLOWED:
        seen.append((event, repr(arguments)[:80]))

ALLOWED = {"mmap.__new__", "object.__getattr__", "os.walk", "os.fwalk", "builtins.id"}
sys.addaudithook(hook)
watching = True
verdicts = [passport(path).safety.verdict.value for path in paths]
watching = False
print(len(paths), sorted(set(verdicts)), seen)
"""


def hostile_files(folder: Path) -> Path:
    """Files that would leave a mark if anything in them ran."""
    mark = folder.parent / "ran"
    folder.mkdir()
    command = f"touch {mark}".encode()
    (folder / "reduce.pkl").write_bytes(b"cos\nsystem\n(V" + command + b"\ntR.")
    (folder / "global.pkl").write_bytes(b"\x80\x04canything_at_all\nname\n.")
    (folder / "build.pkl").write_bytes(b"\x80\x04cantigravity\nfly\n)R}b.")
    (folder / "model.pt").write_bytes((MODELS / "cnn.pth").read_bytes() + b"\x80\x04cos\nsystem\n.")
    return mark


def test_the_audit_hook_sees_nothing_but_the_files_themselves(tmp_path: Path) -> None:
    """No import, compile, exec, process, socket or file outside: over all fixtures and hostile files."""
    mark = hostile_files(tmp_path / "hostile")
    command = [sys.executable, "-c", WATCH, str(MODELS), str(tmp_path / "hostile")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    count, verdicts, seen = found.stdout.split(maxsplit=1)[0], found.stdout, found.stdout.split("]", 1)[1].strip()
    assert int(count) > 40
    assert "'UNSAFE'" in verdicts
    assert seen == "[]"
    assert not mark.exists()


def test_no_framework_is_needed() -> None:
    """Neither PyTorch nor TensorFlow, Keras, scikit-learn, NumPy or pickle is imported by an inspection."""
    code = (
        "import sys; from pathlib import Path; from hivefold.models.passport.inspection import passport; "
        f"[passport(path) for path in Path({str(MODELS)!r}).iterdir()]; "
        "print(sorted({'torch', 'tensorflow', 'keras', 'sklearn', 'numpy', 'pickle', 'h5py', 'onnx', 'onnxruntime'} "
        "& set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert found.stdout.strip() == "[]"
