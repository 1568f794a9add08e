"""The fakes tell the truth: whatever is done to them and to a real nats-server, both answer the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hivefold.bus.memory import MemoryBroker
from hivefold.log.memory import MemoryEventLog
from tests.fixtures.nats import require_nats_server
from tests.tidy.source import ROOT
from tests.truth.play import play, script_of, shrink
from tests.truth.sides import RealServer

pytestmark = pytest.mark.integration


def truth(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.truth", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


@pytest.mark.timeout(320)
async def test_the_fakes_and_the_server_answer_alike() -> None:
    """20,000 random operations on log, work, outcomes, signals, events and chunks, with faults: equal answers."""
    await require_nats_server()
    run = await asyncio.to_thread(truth, "--operations", "20000")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "operations 20000" in run.stdout


def _forgets_the_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryEventLog, "_check_fence", lambda *_: None)


def _takes_second_outcomes(patch: pytest.MonkeyPatch) -> None:
    def store(self: MemoryBroker, subject: str, data: bytes) -> None:
        self._outcome_subjects.discard(subject)
        first(self, subject, data)

    first = MemoryBroker.store_result
    patch.setattr(MemoryBroker, "store_result", store)


def _matches_subjects_by_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hivefold.bus.memory_ends.subject_matches", lambda pattern, subject: pattern == subject)


@pytest.mark.parametrize("lie", [_forgets_the_fence, _takes_second_outcomes, _matches_subjects_by_name])
async def test_a_fake_that_lies_is_found_out(
    lie: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail, and what it shows then is a short script."""
    await require_nats_server()
    lie(monkeypatch)
    # Where the fake holds one outcome more, each play waits for it in vain; those that shorten the script are many.
    monkeypatch.setattr("tests.truth.cast._PATIENCE_S", 2.0)
    server = RealServer(tmp_path / "nats")
    await server.start()
    try:
        script = script_of(1)
        found = await play(server, script)
        assert found is not None
        shorter, _ = await shrink(server, script, found)
        assert len(shorter) <= 5
    finally:
        await server.stop()
