"""Plays a script on both sides at once, stops where they differ, and finds a shorter script that differs too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.truth.cast import Cast
from tests.truth.draws import draw_on_outcomes, draw_on_the_rest, draw_on_work
from tests.truth.faults import draw_fault
from tests.truth.on_log import draw_on_log
from tests.truth.operations import Operation
from tests.truth.sides import FakeSide, RealServer

WORLD: Final = 500
"""Operations in one world; the next begins with empty streams."""
_DRAWS: Final = (draw_on_log, draw_on_work, draw_on_outcomes, draw_on_the_rest, draw_fault)
_WEIGHTS: Final = (400, 250, 200, 149, 1)


@dataclass(frozen=True)
class Difference:
    """Where the sides differ."""

    step: int
    operation: Operation
    fake: object
    real: object
    consumers: str

    def __str__(self) -> str:
        lines = f"fake: {_short(self.fake)}", f"real: {_short(self.real)}", f"server: {self.consumers}"
        return "\n  ".join((f"operation {self.step}, {self.operation}:", *lines))


def _short(answer: object) -> str:
    return re.sub(r"(\\x00){4,}", "...", repr(answer))[:1000]


def script_of(seed: int, length: int = WORLD) -> list[Operation]:
    """The script of a seed."""
    chance = Random(seed)
    return [chance.choices(_DRAWS, _WEIGHTS)[0](chance) for _ in range(length)]


async def play(server: RealServer, script: Sequence[Operation]) -> Difference | None:
    """Plays a script on a fresh fake and on fresh streams; the first difference, if there is one."""
    fake_side = FakeSide()
    async with server.world() as real_side:
        fake, real = Cast(fake_side), Cast(real_side)
        for step, operation in enumerate(script):
            due = operation.foresee(fake, fake_side)
            told, found = await _answer(operation, fake, due), await _answer(operation, real, due)
            if told != found:
                return Difference(step, operation, told, found, await real_side.consumers())
    return None


async def _answer(operation: Operation, cast: Cast, due: int) -> object:
    """What an operation gives, or which error ends it where it should give something."""
    try:
        return await operation.on(cast, due)
    except Exception as error:  # noqa: BLE001 - what one side raises and the other does not is a difference to show
        return f"raised {type(error).__name__}: {error}"


async def shrink(
    server: RealServer, script: Sequence[Operation], difference: Difference
) -> tuple[list[Operation], Difference]:
    """A shorter script that still shows a difference: parts are left out as long as one remains."""
    script = list(script[: difference.step + 1])
    size = max(1, len(script) // 2)
    while size:
        at = 0
        while at < len(script) - 1:
            shorter = script[:at] + script[at + size :]
            found = await play(server, shorter) if shorter else None
            if found is None:
                at += size
            else:
                script, difference = shorter[: found.step + 1], found
        size //= 2
    return script, difference
