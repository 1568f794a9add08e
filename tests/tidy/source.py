"""What the tidy tests read: the hand-written Python files, parsed once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PRODUCT: Final = ("hivefold", "actors", "node", "coordinator", "cli")
"""The packages that users install."""
ALL: Final = (*PRODUCT, "tests", "examples", "bench", "scripts")
GENERATED: Final = ROOT / "hivefold" / "v1"


@dataclass(frozen=True)
class Module:
    """A hand-written Python file: its path from the root, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(self) -> Iterator[tuple[str, int]]:
        """Every module that it imports, anywhere, with the line. `from a import b` counts as a and a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module, node.lineno
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def named(self) -> Iterator[str]:
        """Every module that it names in a text to be imported later, as in "cli.up:up" or "coordinator.app"."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.fullmatch(r"((?:\w+\.)+\w+)(?::\w+)?", node.value)
                if found:
                    yield found[1]

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Every call with its dotted name as written, e.g. "datetime.now"."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


@cache
def modules(*tops: str) -> tuple[Module, ...]:
    """The hand-written modules below the given folders; all of them when none is given."""
    found = []
    for top in tops or ALL:
        for path in sorted((ROOT / top).rglob("*.py")):
            if GENERATED not in path.parents and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8")
                found.append(Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text)))
    return tuple(found)
