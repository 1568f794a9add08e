"""`hivefold log explain`: the causal chain of one job, task, node or model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts.types import PositiveInt

from cli.address import Target
from cli.log.source import first_of, read_log
from cli.output import show_one
from cli.progress import Bar
from hivefold.log.port import ReadableLog

if TYPE_CHECKING:
    from coordinator.audit.story import Story


def explain(
    subject: str,
    file: Path | None = None,
    *,
    kind: Literal["job", "task", "node", "model"] | None = None,
    limit: PositiveInt = 200,
    target: Target = Target(),  # noqa: B008 - frozen
) -> None:
    """Tell what happened to one subject and why, from the log alone.

    What was asked, each decision with its reason and the nodes refused, every attempt and retry, who answered,
    digests, times.

    Parameters
    ----------
    subject
        A job, a task (job/7), a node, or a model (name or name@version).
    file
        A log file, see `hivefold log export`; otherwise the log of the fleet.
    kind
        What the subject is, where its name fits several.
    limit
        At most this many lines; those in the middle are left out.
    """
    from cli.views.stories import story_plain, story_view
    from coordinator.audit.explain import explain as tell
    from coordinator.audit.subjects import Kind, parse_subject

    subjects = parse_subject(subject, Kind(kind) if kind else None)

    async def told(log: ReadableLog) -> Story:
        last = (await log.head()).sequence
        with Bar("read", "records") as bar:
            return await tell(
                log,
                subjects,
                up_to=last,
                after=first_of(log) - 1,
                limit=limit,
                progress=lambda position: bar.update(position, last),
            )

    story = read_log(target, file, told)
    show_one(target, story_plain(story), lambda: story_view(story))
