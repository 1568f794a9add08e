"""Size caps: what does not fit a screen and a head is split."""

from __future__ import annotations

import ast
from statistics import median

from tests.tidy.source import Module, modules

FILE_LINES = 400
FUNCTION_LINES = 60
MEDIAN_LINES = 10


def functions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end; the docstring, which a command shows as its help, is not counted."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def test_files_are_short() -> None:
    """No hand-written file has more than 400 lines."""
    long = {m.path: lines for m in modules() if (lines := len(m.text.splitlines())) > FILE_LINES}

    assert long == {}


def test_functions_are_short() -> None:
    """No function has more than 60 lines, docstring apart."""
    long = {
        f"{m.path}:{f.lineno} {f.name}": length(f)
        for m in modules()
        for f in functions(m)
        if length(f) > FUNCTION_LINES
    }

    assert long == {}


def test_most_functions_are_very_short() -> None:
    """The median function of the product has fewer than 10 lines."""
    product = modules("hivefold", "actors", "node", "coordinator", "cli")

    assert median(length(f) for m in product for f in functions(m)) < MEDIAN_LINES
