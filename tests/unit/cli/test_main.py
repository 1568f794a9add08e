"""The program: finds commands, explains itself, turns every end into an exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from cli.main import build, run
from hivefold.version import VERSION


def commands(app: App, *path: str) -> list[tuple[str, ...]]:
    """The path of every command below `app`."""
    found = [path] if path else []
    for name in app.resolved_commands():
        if not name.startswith("-"):
            found += commands(app[name], *path, name)
    return found


@pytest.fixture(autouse=True)
def no_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HIVEFOLD_ADDRESS", "HIVEFOLD_DIR", "HIVEFOLD_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", commands(build()), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each command names it, says what it does, and exits with 0."""
    assert run([*path, "--help"]) == 0

    out, err = capsys.readouterr()
    assert f"hivefold {' '.join(path)}" in out
    assert err == ""


def test_the_commands_are_those_that_were_promised() -> None:
    """Removing or renaming a command breaks scripts."""
    promised = """
        up, top, doctor, version, completion show, completion install, coordinator run,
        coordinator hand-over, node ls, node show, node drain, node undrain, node trust, node run,
        model add, model inspect, model ls, model show, model alias, model ps, model load, model unload, model pin,
        model rm, job submit infer, job submit probe, job ls, job show, job tasks, job why, job watch, job wait,
        job cancel, job erase, job output, log tail, log replay, log verify, log export, log diff, log explain,
        log recheck, log segments, log restore, log rotate-key, audit inference
    """
    assert {tuple(path.split()) for path in promised.split(",")} <= set(commands(build()))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nope", 'Unknown command "nope"'),
        ("job nope", 'Unknown command "nope"'),
        ("node show", "requires an argument"),
        ("node ls --bogus", "Unknown option"),
        ("node ls -o xml", '"text", "json", "jsonl"'),
        ("job submit probe --tasks 0", "--tasks"),
        ("job submit probe --tasks many", "--tasks"),
        ("job submit probe --timeout -1", "--timeout"),
        ("job submit probe --priority urgent", "interactive"),
        ("job submit infer --model m", "--input"),
        ("up --nodes 0", "--nodes"),
        ("up --nodes 1000", "--nodes"),
        ("up --port 70000", "--port"),
        ("top --interval 0", "--interval"),
        ("model load m --wait --timeout -1", "--timeout"),
        ("model pin m --wait --timeout inf", "--timeout"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(line: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: one line what, one line where to look; nothing on standard output."""
    assert run(line.split()) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert what in err
    assert err.splitlines()[-1].startswith("  -> see: hivefold")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("job submit probe --label nonsense", "no label"),
        ("job submit infer --model m --input x.npy --output out.txt", ".npz, .npy, .csv"),
        ("node ls --address nowhere", "host:port"),
        ("coordinator run --nats-servers ftp://x", "nats://"),
        ("node run --label nonsense", "no label"),
        ("node run --id NO", "a-z0-9"),
        ("job submit infer --model m --input x.npy --output nowhere/out.npz", "nowhere is no directory"),
        ("job output j-1 nowhere/out.npz", "nowhere is no directory"),
        ("model load m --memory lots", "is no size"),
        ("model load m --timeout 5", "give --wait"),
        ("model alias digits 1", "digits@prod"),
        ("node trust nowhere", "no node's data directory"),
        ("node trust nowhere --reset", "no node's data directory"),
        ("log verify any.hflog --witness nowhere", "no such file"),
    ],
)
def test_wrong_values_are_usage_errors_too(line: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the parser cannot know is refused the same way, before anything is sent."""
    assert run(line.split()) == 2

    assert what in capsys.readouterr().err


def test_without_a_fleet_commands_are_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 4, with the command that starts one; as JSON where that was asked for."""
    assert run(["job", "ls"]) == 4
    assert "start one with: hivefold up" in capsys.readouterr().err

    assert run(["job", "ls", "-o", "json"]) == 4
    assert json.loads(capsys.readouterr().err)["error"]["reason"] == "SERVER_UNAVAILABLE"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As a command and as a flag, for people and for programs."""
    assert (run(["version"]), run(["--version"]), run(["version", "-o", "json"])) == (0, 0, 0)

    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(f"hivefold {VERSION} ")
    assert second == VERSION
    assert json.loads(third)["hivefold"] == VERSION


def test_a_defect_is_one_line_and_a_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People are asked to report it; developers set HIVEFOLD_DEBUG."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("cli.version.write_json", broken)
    assert run(["version", "-o", "jsonl"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["reason"] == "INTERNAL"

    monkeypatch.setenv("HIVEFOLD_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["version", "-o", "jsonl"])


def test_an_output_that_cannot_be_written_is_no_wrong_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk behind `> file` has no name here: the person is sent to the disk, not to a path."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cli.version.write_json", full)
    assert run(["version", "-o", "jsonl"]) == 1

    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["message"], "disk" in told["hint"]) == ("No space left on device", True)


def test_the_start_imports_nothing_heavy() -> None:
    """`version` answers at once: gRPC, NumPy, NATS and rich are imported by the commands that need them."""
    heavy = "{'grpc', 'numpy', 'nats', 'rich', 'onnxruntime', 'structlog', 'google.protobuf'}"
    program = f"from cli.main import run; import sys; run(['version']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_learn_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The completion script knows the commands and their options."""
    assert run(["completion", "show", shell]) == 0

    script = capsys.readouterr().out
    assert "undrain" in script
    assert "--by-reference" in script or "by-reference" in script
