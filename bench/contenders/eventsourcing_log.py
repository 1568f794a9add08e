"""eventsourcing on SQLite: append of one event and of many at once, and replay of a history into its state.

SQLite runs as the library sets it up: write-ahead log, and a commit is on disk before it returns.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from bench.contenders.protocol import serve


class _Job(Aggregate):  # type: ignore[misc,unused-ignore]
    """A job that counts its tasks; one event a task."""

    def __init__(self) -> None:
        self.done = 0

    def _count(self, task: int, attempt: int) -> None:  # noqa: ARG002 - an event's fields are its arguments
        self.done += 1

    succeed = event("TaskSucceeded")(_count)


def main() -> None:
    database = Path(sys.argv[1]) / "eventsourcing.db"
    application: Any = Application(
        {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(database)}  # type: ignore[arg-type,unused-ignore]
    )

    def append(batches: int, size: int) -> dict[str, Any]:
        job: Any = _Job()
        application.save(job)
        began = time.perf_counter()
        for batch in range(batches):
            for at in range(size):
                job.succeed(task=batch * size + at, attempt=1)
            application.save(job)
        return {"seconds": time.perf_counter() - began, "id": str(job.id)}

    def replay(events: int) -> dict[str, Any]:
        job: Any = _Job()
        for at in range(events):
            job.succeed(task=at, attempt=1)
        application.save(job)
        began = time.perf_counter()
        found: Any = application.repository.get(job.id)
        seconds = time.perf_counter() - began
        assert found.done == events, "the replayed state is the live one"
        return {"seconds": seconds}

    serve({"append": append, "replay": replay})


if __name__ == "__main__":
    main()
