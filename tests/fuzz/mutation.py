"""Real files with a few bytes changed, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

_EDGES: Final = (b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f", b"\0\0\0\x80", b"PK\x05\x06")


def files(corpus: Sequence[Path], seed: int) -> Iterator[bytes]:
    """Mutants without end."""
    chance = Random(seed)
    whole = [path.read_bytes() for path in corpus]
    while True:
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _change(data, chance, whole)
        yield bytes(data)


def _change(data: bytearray, chance: Random, whole: list[bytes]) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0:
            data[place : place + 1] = chance.randbytes(1)
        case 1:
            data[place : place + 8] = chance.choice(_EDGES)
        case 2:
            del data[place : place + chance.randrange(1, 40)]
        case 3:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        case _:
            other = chance.choice(whole)
            start = chance.randrange(len(other) + 1)
            data[place : place + 32] = other[start : start + 32]
