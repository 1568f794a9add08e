"""What subscribers and readers of outputs have in the end, held against the log."""

from __future__ import annotations

from typing import Final

from coordinator.core.model import InferSpec, JobState
from coordinator.job_keys import JobKeys
from coordinator.output import OutputFormat, stream_output
from hivefold.bus.memory import MemoryConnection
from hivefold.errors import HivefoldError
from hivefold.v1 import feed_pb2
from tests.simulation.checker import Checker
from tests.simulation.models import expected_output

_HEADER_BYTES: Final = 4096


async def check_outputs(checker: Checker, connection: MemoryConnection, keys: JobKeys) -> None:
    """The output of each infer job is whole: every row once, in order, from whichever attempt it came."""
    for job_id, job in sorted(checker.ended.items()):
        if job.state is JobState.SUCCEEDED and isinstance(job.spec.kind, InferSpec):
            wanted = expected_output(job)
            try:
                key = await keys.for_output(job)
                output = await stream_output(job, OutputFormat.NPY, connection.result_receiver(), keys.chunks, key)
                written = b"".join([piece async for piece in output.pieces])
            except HivefoldError as error:
                checker.fail(f"the output of {job_id} cannot be had: {error}")
            else:
                if written[-len(wanted) :] != wanted or not len(written) - len(wanted) < _HEADER_BYTES:
                    checker.fail(f"the output of {job_id} is not that of its rows in order")
    check_feed(checker, connection.broker.events)


def check_feed(checker: Checker, published: list[tuple[str, bytes, int]]) -> None:
    """Subscribers got every event of every job in its order; what came twice came as it was."""
    seen: dict[tuple[str, int, int], bytes] = {}
    last = (0, 0)
    for subject, data, sequence in published:
        if not subject.startswith("events.job."):
            continue
        event = feed_pb2.JobEvent.FromString(data)
        key = (subject, event.sequence, event.index)
        if event.sequence != sequence:
            checker.fail(f"the feed calls #{event.sequence} #{sequence}")
        if key not in seen:
            if (event.sequence, event.index) <= last:
                checker.fail(f"the feed tells of {key} after {last}")
            last = (event.sequence, event.index)
        if seen.setdefault(key, data) != data:
            checker.fail(f"the feed tells of {key} in two ways")
    told = {(subject, sequence) for subject, sequence, _ in seen}
    for sequence, job_id in checker.job_facts:
        if (f"events.job.{job_id}", sequence) not in told:
            checker.fail(f"the feed never told of #{sequence}, which concerns {job_id}")
