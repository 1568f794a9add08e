"""Transcripts of the core: what each command records and what follows from it.

`pytest tests/scenarios --rewrite` writes what the core does now; read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.driver import Driver

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
LINE = "----"


def replay(text: str) -> str:
    """The transcript with the answers of today's core."""
    driver, blocks = Driver(), []
    for block in text.strip("\n").split("\n\n"):
        told = block.split(f"\n{LINE}")[0].split("\n")
        commands = [line for line in told if line and not line.startswith("#")]
        if not commands:
            blocks.append(block)
            continue
        answers = [answer for command in commands for answer in driver.run(command)]
        blocks.append("\n".join([*told, LINE, *answers]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_core_answers_as_written(path: Path, request: pytest.FixtureRequest) -> None:
    """Each transcript reads as the core behaves."""
    written = path.read_text(encoding="utf-8")
    answered = replay(written)
    if request.config.getoption("--rewrite"):
        path.write_text(answered, encoding="utf-8")

    assert answered == written or request.config.getoption("--rewrite")
