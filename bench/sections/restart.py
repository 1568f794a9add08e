"""How soon a coordinator leads again however long the log is, and what it then holds in memory."""

from __future__ import annotations

from typing import Final

from bench.context import Context
from bench.restarting import MILLION, MILLION_SINGLE, NOTHING, TEN_MILLION, Found, Start, prepare, restart
from bench.results import Better, Measure, Section, Target

KEY: Final = "restart"
TITLE: Final = "Start over a long log"
_HOW: Final = """\
Logs of task transitions (placed, succeeded) that the coordinator's own core decided, on a nats-server with fsync
always: one with an outcome a record in jobs of 100 tasks, the others with 200 outcomes a record in jobs of 10,000.
A coordinator folds the whole log once. Then it is started again and again, from a snapshot that is as old as one can
be: a little later a leader would write the next. From the start of the process until it leads, a term of its own
recorded, after a kill and after a stop in order. Resident memory is that of the whole process some seconds later.
"Nothing" is a coordinator on an empty log. Ten million events of a record each are measured by
`make bench-bounded`, into RESTART.md."""


def run(context: Context) -> Section:
    """Makes each log, has it folded once, and restarts the coordinator round by round."""
    found: dict[str, Found] = {}
    for number, shape in enumerate((NOTHING, MILLION_SINGLE, MILLION, TEN_MILLION)):
        directory = context.workplace / f"log-{number}"
        found[shape.name] = its = prepare(context, directory, shape)
        restart(context, directory, its)
        context.say(told(shape.name, its))
    return Section(KEY, TITLE, _HOW, _targets(found), _measures(found))


def told(name: str, found: Found) -> str:
    """What was found, in one line."""
    return (
        f"{name}: {found.records:,} records, leads {max(_leading(found.stopped)):.2f} s after a stop and "
        f"{max(_leading(found.killed)):.2f} s after a kill with {max(found.megabytes):.0f} MB; "
        f"from record 1 in {found.first.serving_s:.1f} s with {found.first.megabytes:.0f} MB"
    )


def _leading(starts: list[Start]) -> tuple[float, ...]:
    return tuple(start.leading_s for start in starts)


def _targets(found: dict[str, Found]) -> tuple[Target, ...]:
    none = max(found[NOTHING.name].megabytes)
    long = {name: its for name, its in found.items() if its.records}
    return (
        *(
            Target(f"leads again over {name}", "s", _leading([*its.stopped, *its.killed]), 3, Better.LESS)
            for name, its in long.items()
        ),
        *(
            Target(f"resident memory over {name}, more than over nothing", "MB", _more(its, none), 200, Better.LESS)
            for name, its in long.items()
        ),
    )


def _more(found: Found, none: float) -> tuple[float, ...]:
    return tuple(each - none for each in (found.first.megabytes, *found.megabytes))


def _measures(found: dict[str, Found]) -> tuple[Measure, ...]:
    measures = []
    for name, its in found.items():
        note = f"{name} ({its.records:,} records)" if its.records else name
        contender = "from a snapshot" if its.records else "empty"
        measures += [
            Measure("start to leading, after a stop", contender, "s", _leading(its.stopped), Better.LESS, note),
            Measure("start to leading, after kill -9", contender, "s", _leading(its.killed), Better.LESS, note),
            Measure("resident memory", contender, "MB", tuple(its.megabytes), Better.LESS, note),
        ]
        if its.records:
            measures += [
                Measure("start to state", "from record 1", "s", (its.first.serving_s,), Better.LESS, note),
                Measure("resident memory", "from record 1", "MB", (its.first.megabytes,), Better.LESS, note),
            ]
    return tuple(measures)
