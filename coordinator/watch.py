"""Follows jobs and nodes from any position on: first as the log tells it, then live, without gap or repeat."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from coordinator.core.model import State
from coordinator.derive import FINAL_TYPES, Decided, Folded, Scope, job_events, node_events
from coordinator.followers import Followed, FollowerLaggedError
from coordinator.history import PastJobs, history
from hivefold.errors import FieldViolation, InvalidRequestError, NotLeaderError
from hivefold.ids import JobId
from hivefold.log.port import EventLog
from hivefold.v1 import feed_pb2


async def watch_job(
    source: Followed, log: EventLog, past: PastJobs, job_id: JobId, after_sequence: int
) -> AsyncGenerator[list[feed_pb2.JobEvent], None]:
    """Yields the events of a job after a position, those of a record together, and ends after its final one.

    Raises NotFoundError, InvalidRequestError for a position beyond the log's end, NotLeaderError when the
    writer stops meanwhile.
    """
    job = source.state.jobs.get(job_id) or await past.find(job_id, source.state)
    if job.state.final and after_sequence >= job.sequence:
        check_position(source.state, after_sequence)
        return
    scope = Scope(frozenset({job_id}))
    start = Folded(job.create_sequence - 1, 0, (), State(models=source.state.models, removed=source.state.removed))
    async with aclosing(follow(source, log, start, scope, after_sequence)) as decided:
        async for record in decided:
            events = list(job_events(record, scope))
            if events:
                yield events
                if events[-1].type in FINAL_TYPES:
                    return


async def watch_nodes(source: Followed, log: EventLog, after_sequence: int) -> AsyncGenerator[feed_pb2.NodeEvent, None]:
    """Yields the events of all nodes after a position; 0 means from now on.

    What an event from the past does not concern is shown as it is now. Raises InvalidRequestError for a
    position beyond the log's end, NotLeaderError when the writer stops.
    """
    state = source.state
    position = after_sequence or state.sequence
    start = Folded(min(position, state.sequence), 0, (), State(nodes=state.nodes))
    scope = Scope(frozenset(), nodes=True)
    async with aclosing(follow(source, log, start, scope, position)) as decided:
        async for record in decided:
            for event in node_events(record):
                yield event


async def follow(
    source: Followed, log: EventLog, start: Folded, scope: Scope, after_sequence: int
) -> AsyncGenerator[Decided, None]:
    """Yields every record after `after_sequence`, for ever; folds from `start` on what the log has to tell.

    A reader that falls behind the writer goes on from the log where it was. Raises NotLeaderError when the
    writer stops.
    """
    check_position(source.state, after_sequence)
    folded = start
    while True:
        # The last commits are in memory. Further back the log tells first, and the follower is made before
        # reading it: whatever is committed from there on comes through it.
        recent = source.follow_after(max(after_sequence, folded.sequence))
        follower = recent or source.follow()
        try:
            head = folded.sequence if recent else source.state.sequence
            async with aclosing(history(log, folded, scope, head)) as past:
                async for folded in past:
                    if folded.sequence > after_sequence:
                        yield folded
            async for committed in follower:
                folded = Folded(committed.sequence, committed.time_us, (), committed.state)
                if committed.sequence > after_sequence:
                    yield committed
        except FollowerLaggedError:
            if source.ended:
                raise NotLeaderError("this coordinator no longer leads; watch again from the last position") from None
        finally:
            follower.close()


def check_position(state: State, after_sequence: int) -> None:
    """Raises InvalidRequestError for a position that the log has not reached."""
    if after_sequence > state.sequence:
        fix = f"must be at most {state.sequence}, the log's end: the position comes from another fleet, or is made up"
        raise InvalidRequestError(
            f"after_sequence {fix}",
            metadata={"head": str(state.sequence)},
            violations=[FieldViolation("after_sequence", fix)],
        )
