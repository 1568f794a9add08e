"""`hivefold audit inference`: what was inferred, by model and node, from the log alone or with the batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from cli.address import Target
from cli.exits import Exit
from cli.log.source import LiveLog, first_of, read_log
from cli.output import show_one
from cli.progress import Bar
from hivefold.errors import InvalidRequestError
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from coordinator.audit.inference import Contents, Report, Selection


def inference(
    file: Path | None = None,
    *,
    model: str = "",
    node: str = "",
    since: str = "",
    until: str = "",
    windows: Annotated[bool, Parameter(negative=())] = False,
    requests: Annotated[bool, Parameter(negative=())] = False,
    verify: Annotated[bool, Parameter(negative=())] = False,
    batches: Path | None = None,
    save: Path | None = None,
    limit: PositiveInt = 200,
    target: Target = Target(),  # noqa: B008 - frozen
) -> int:
    """Show what was inferred: requests, failures, times and batches by model and node, as the log records them.

    With --verify the batches that nodes stored are read and held against the digests in the log; the exit code is 1
    when one does not fit.

    Parameters
    ----------
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    model
        Only this model (digits) or version (digits@2).
    node
        Only what this node inferred.
    since
        From this moment on: a position in the log, a time with its zone, or a span before its end (10m).
    until
        Up to this moment.
    windows
        List the windows, too: one for each second, model and node.
    requests
        List the requests of models whose audit is full, too; verifies on the way.
    verify
        Read the batches, and check them.
    batches
        A file with batches that --save wrote, for a log file.
    save
        Keep the batches that are read in this file.
    limit
        Of windows and requests list the last so many.
    """
    from cli.views.inference import report_plain, report_view

    selection = _selection(model, node)
    looks = requests or verify or save is not None
    if file is not None and looks and batches is None:
        raise InvalidRequestError("a log file holds no batches: give those that --save kept with --batches")

    async def answer(log: ReadableLog) -> Report:
        from coordinator.audit.inference import Auditor, audit_inference
        from coordinator.audit.moments import parse_moment, position_of

        first = first_of(log)
        after = await position_of(log, parse_moment(since)) if since else first - 1
        up_to = await position_of(log, parse_moment(until or "end"))
        with _contents(log, batches, save) as contents, Bar("read", "records") as bar:
            auditor = Auditor(selection, limit=limit, contents=contents if looks else None, whole=not after)
            return await audit_inference(
                log, auditor, after=after, up_to=up_to, progress=lambda position: bar.update(position, up_to)
            )

    report = read_log(target, file, answer)
    show_one(
        target,
        report_plain(report, windows=windows, requests=requests),
        lambda: report_view(report, windows=windows, requests=requests),
    )
    return Exit.FAILED if report.altered_count else Exit.OK


def _selection(model: str, node: str) -> Selection:
    from coordinator.audit.inference import Selection
    from hivefold.ids import MODEL_RULE, parse_model

    if not model:
        return Selection(node_id=node)
    named = parse_model(model)
    if named is None:
        raise InvalidRequestError(f"--model {model!r} must be {MODEL_RULE}")
    return Selection(*named, node_id=node)


@contextmanager
def _contents(log: ReadableLog, batches: Path | None, save: Path | None) -> Iterator[Contents | None]:
    """Where batches are read: a file, or the fleet; kept in another file on the way if that is asked for."""
    from cli.audit.kept import KeptBatches, SavedBatches
    from hivefold.durable_file import DurableFile

    source: Contents | None = None
    if batches is not None:
        source = KeptBatches(batches)
    elif isinstance(log, LiveLog):
        source = log.fleet.audit
    if source is None or save is None:
        yield source
        return
    with DurableFile(save, replace=True) as file:
        yield SavedBatches(source, file)
