"""Who may import what: import-linter's contracts, and the rules that it cannot express."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import pytest

from tests.tidy.source import PRODUCT, ROOT, Module, modules

CHANCE = {"time", "random", "uuid", "secrets"}
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now", "date.today", "os.urandom"}
RUNS_CODE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop", "runpy"}


def roots(module: Module) -> set[str]:
    return {name.split(".")[0] for name, _ in module.imports()}


def test_import_contracts_hold() -> None:
    """The contracts in pyproject.toml hold: layers, pure cores, and one home for each library."""
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    found = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr


def test_threads_meet_asyncio_in_one_place() -> None:
    """Only actors/bridge.py uses asyncio together with threads, and the client for callers that have no event loop."""
    mixed = [m.path for m in modules(*PRODUCT) if {"asyncio", "threading"} <= roots(m)]
    crossing = [m.path for m in modules(*PRODUCT) if any(name.endswith("_threadsafe") for name, _ in m.calls())]

    assert {*mixed, *crossing} <= {"actors/bridge.py", "hivefold/client/background.py"}


def test_time_and_chance_enter_at_the_edge() -> None:
    """Only hivefold/clock.py reads clocks and only hivefold/entropy.py draws random bytes."""
    allowed = {"hivefold/clock.py", "hivefold/entropy.py"}
    found = [
        f"{m.path}: {name}"
        for m in modules(*PRODUCT)
        if m.path not in allowed
        for name in [*(CHANCE & roots(m)), *(name for name, _ in m.calls() if name in CLOCKS)]
    ]

    assert found == []


def test_untrusted_bytes_are_parsed_never_run() -> None:
    """No pickle, no eval, no exec, no shell, and no loader that would unpickle."""
    shipped = modules(*PRODUCT, "examples", "bench", "scripts")
    imported = [f"{m.path}: {name}" for m in shipped for name in RUNS_CODE & roots(m)]
    called = [f"{m.path}: {name}" for m in shipped for name, _ in m.calls() if name in {"eval", "exec", "compile"}]
    opened = [
        f"{m.path}: {keyword.arg}"
        for m in shipped
        for name, call in m.calls()
        for keyword in call.keywords
        if keyword.arg == "allow_pickle" or (keyword.arg == "shell" and name.startswith(("subprocess", "asyncio")))
        if not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]

    assert imported + called + opened == []


@cache
def used_modules() -> frozenset[str]:
    """What anything but a test imports or names, and where a process starts."""
    others = [m for m in modules() if not m.path.startswith("tests/")]
    imported = {name for m in others for name, _ in m.imports()}
    return frozenset({"cli.main"} | imported | {name for m in others for name in m.named()})


@pytest.mark.parametrize("package", PRODUCT)
def test_every_module_is_used(package: str) -> None:
    """Every module is imported by another, or is where a process starts: there is no dead code."""
    fakes = re.compile(
        r"hivefold/\w+/memory\w*\.py|actors/(?:backends/echo|probes/recorded)\.py"
    )  # ports' adapters for tests
    unused = [
        m.path
        for m in modules(package)
        if m.name not in used_modules() and not m.path.endswith(("__init__.py", "__main__.py"))
        if not fakes.fullmatch(m.path)
    ]

    assert unused == []
