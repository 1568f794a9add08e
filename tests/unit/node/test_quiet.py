"""Who is weighed alone."""

from __future__ import annotations

import asyncio

import pytest

from node.residency.quiet import Quiet


async def pass_by(quiet: Quiet, said: list[str], name: str, gate: asyncio.Event, *, alone: bool) -> None:
    async with quiet.turn(alone=alone):
        said.append(f"{name} in")
        await gate.wait()
        said.append(f"{name} out")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_that_wants_to_be_alone_waits_for_the_others_and_holds_up_those_behind() -> None:
    """Others go together."""
    quiet, said = Quiet(), list[str]()
    gates = {name: asyncio.Event() for name in "abcd"}
    tasks = [asyncio.create_task(pass_by(quiet, said, name, gates[name], alone=name in "cd")) for name in "acbd"]
    await settle()
    assert said == ["a in"]
    gates["a"].set()
    await settle()
    assert said[1:] == ["a out", "c in"]
    for gate in gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert [line for line in said if "d" in line or "c" in line] == ["c in", "c out", "d in", "d out"]
    assert "b out" in said


async def test_nobody_waits_longer_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that takes long is not in anybody's way."""
    monkeypatch.setattr("node.residency.quiet.QUIET_S", 0.001)
    quiet, said, never = Quiet(), list[str](), asyncio.Event()
    first = asyncio.create_task(pass_by(quiet, said, "a", never, alone=True))
    await settle()
    async with asyncio.timeout(5):
        for alone in (True, False):
            async with quiet.turn(alone=alone):
                said.append("passed")
    assert said == ["a in", "passed", "passed"]
    first.cancel()
