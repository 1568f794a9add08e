"""How tables fit the terminal they are shown on."""

from __future__ import annotations

import io

from rich.console import Console

from cli.output import table


def shown(width: int) -> list[str]:
    out = io.StringIO()
    rows = [("j-01m7z4ddf316zvej6nsracjgh6", "[green]running[/]", "40 %"), ("j-2", "failed", "7 %")]
    Console(file=out, width=width).print(table(("job", "state", "done"), rows, right=("done",)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_all_columns_are_shown_where_there_is_room() -> None:
    """Markup takes no room: 28 + 7 + 4 characters and two gaps of two."""
    assert shown(43) == [
        "job                           state    done",
        "j-01m7z4ddf316zvej6nsracjgh6  running  40 %",
        "j-2                           failed    7 %",
    ]


def test_the_last_columns_go_first() -> None:
    """An id that is cut could not be given to the next command: it stays whole, and so does each column that stays."""
    assert [line.split() for line in shown(42)] == [
        ["job", "state"],
        ["j-01m7z4ddf316zvej6nsracjgh6", "running"],
        ["j-2", "failed"],
    ]
    assert shown(30) == ["job", "j-01m7z4ddf316zvej6nsracjgh6", "j-2"]


def test_a_table_without_rows_is_its_headings() -> None:
    """Nothing to show is no error."""
    out = io.StringIO()
    Console(file=out, width=80).print(table(("job", "state"), []))
    assert out.getvalue().split() == ["job", "state"]
