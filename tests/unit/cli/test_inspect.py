"""`hivefold model inspect`: a passport for people, for programs, and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from tests.fixtures.passports import MODELS


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    path = tmp_path / "evil.bin"
    path.write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    return path


def test_people_read_the_verdict_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Then what the file is and needs."""
    assert run(["model", "inspect", str(MODELS / "llama")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("model", "verdict", "format", "framework", "architecture", "task", "parameters", "size", "weights", "cache"),
        *("needs", "notes"),
    ]
    assert lines[1].split() == ["verdict", "safe"]


def test_programs_read_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys can be relied on, also where they are empty."""
    assert run(["model", "inspect", str(MODELS / "cnn.onnx"), "-o", "json", "--batch", "10"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["safety"] == {"verdict": "SAFETY_VERDICT_SAFE", "findings": [], "coverage": []}
    assert found["needs"]["batchRows"] == 10
    assert found["inputs"] == [{"name": "image", "dataType": "FP32", "shape": ["-1", "3", "8", "8"]}]
    assert {"format", "formatVersion", "framework", "task", "architecture", "architectureName", "notes"} < found.keys()


def test_an_unsafe_file_ends_with_1(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The passport is printed all the same, with the evidence."""
    assert run(["model", "inspect", str(evil)]) == 1
    assert "imports os.system (evil.bin, byte 0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "fail_on", "code"),
    [
        ("cnn-script.pt", "unsafe", 0),
        ("cnn-script.pt", "unknown", 1),
        ("external", "unsafe", 0),
        ("external", "suspicious", 1),
        ("lambda.keras", "never", 0),
        ("cnn.pth", "unknown", 0),
    ],
)
def test_the_caller_says_what_is_too_bad(name: str, fail_on: str, code: int) -> None:
    """`--fail-on` names the mildest verdict that fails."""
    assert run(["model", "inspect", str(MODELS / name), "--fail-on", fail_on]) == code


def test_an_unsafe_file_is_not_even_sent(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`model add` needs no fleet to refuse it."""
    assert run(["model", "add", "m", str(evil), "-o", "json"]) == 1

    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["reason"], error["metadata"]["code"]) == ("MODEL_UNSAFE", "pickle-dangerous-import")
