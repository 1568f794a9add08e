"""Names that say nothing, and texts that belong to one machine."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.source import ROOT, Module, modules

EMPTY_NAME = re.compile(r"(?:^|_)(?:util|utils|manager|helper|helpers)(?:_|$)", re.IGNORECASE)
LOCAL_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work)/\w")
OUTSIDE = re.compile(r"\bshared/(?:DESIGN|notes|tools)\b")
SKIPPED = {"uv.lock", "requirements.lock", "LICENSE", ".git"}
TEXT_SUFFIXES = {"", ".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".proto", ".txt", ".json", ".service", ".cfg"}


def snake(name: str) -> str:
    """CamelCase in the form that the pattern reads."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)


def names(module: Module) -> Iterator[str]:
    yield from Path(module.path).with_suffix("").parts
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that is part of the repository."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith((".", "__"))]
        for name in files:
            path = Path(folder, name)
            if name not in {*SKIPPED, ".git"} and path.suffix in TEXT_SUFFIXES:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_names_say_what_a_thing_is() -> None:
    """Nothing is called utils, manager or helper: such a name fits everything and so says nothing."""
    empty = sorted({f"{m.path}: {name}" for m in modules() for name in names(m) if EMPTY_NAME.search(snake(name))})

    assert empty == []


def test_no_text_belongs_to_one_machine() -> None:
    """No file names a path of somebody's machine, or a document that is not in the repository."""
    here = Path(__file__).relative_to(ROOT).as_posix()
    local = [
        f"{path}: {found.group()}"
        for path, text in texts()
        if path != here
        for pattern in (LOCAL_PATH, OUTSIDE)
        for found in pattern.finditer(text)
    ]

    assert local == []
