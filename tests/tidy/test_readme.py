"""What the documents name exists: commands, make targets, files."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import pytest

from cli.main import build
from tests.tidy.source import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def code(page: Path) -> str:
    """Shell blocks and inline code of a page, a piece a line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    """`hivefold NOUN VERB` is a command of the program; `make TARGET` is one of the Makefile's."""
    app, unknown = build(), []
    for line in re.findall(r"^hivefold ((?:[a-z]+(?:-[a-z]+)* ?)+)", code(page), re.MULTILINE):
        words = line.split()
        chain, _, rest = app.parse_commands(words)
        group = reduce(lambda found, name: found[name], chain, app)
        if not chain or (rest and group.default_command is None):
            unknown.append(line)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    unknown += [
        word
        for line in re.findall(r"^make ([a-z -]+)", code(page), re.MULTILINE)
        for word in line.split()
        if word not in targets
    ]

    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    """Relative links lead somewhere."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Paths from the repository's root, as in `hivefold/errors.py`, are there."""
    named = re.findall(r"^((?:[a-z_]+/)+[\w.]+\.(?:py|proto|md|sh))$", code(page), re.MULTILINE)

    made = {"bench/RESULTS.md"}  # by `make bench`
    assert [path for path in named if path not in made and not (ROOT / path).exists()] == []
