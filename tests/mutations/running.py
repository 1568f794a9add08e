"""Mutates, verifies, and compares the position that is named."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from hivefold.errors import LogCorruptError
from hivefold.proof.extension import first_seen
from hivefold.proof.reading import verify_file
from tests.mutations.kinds import KINDS, Mutant
from tests.mutations.logs import signed_file, signed_log


class Mutator:
    """Two logs, and one mutation of the first after another."""

    def __init__(self, directory: Path, seed: int, records: int) -> None:
        self._path = directory / "mutant.hflog"
        self._draw = random.Random(seed)
        self.file = signed_file(signed_log(2 * seed, records), directory)
        self._other = signed_file(signed_log(2 * seed + 1, records), directory)
        self._witness = first_seen(self.file.entries[-1].checkpoint)
        self.caught: Counter[str] = Counter()

    def verify_original(self) -> None:
        """The log itself is verified."""
        self._path.write_bytes(self.file.to_bytes())
        verified = verify_file(self._path, key_id=self.file.signer.public.key_id, witness=self._witness)
        assert verified.signed == verified.sequence == self.file.records

    def mutate(self) -> str:
        """One mutation of a random kind; what is wrong with how it was caught, or nothing."""
        kind = self._draw.choice(KINDS)
        mutant = kind(self.file, self._other, self._draw)
        found = self._found(mutant)
        if found in mutant.positions:
            self.caught[kind.__name__] += 1
            return ""
        return f"{kind.__name__}: named {found}, right is {sorted(mutant.positions)}"

    def _found(self, mutant: Mutant) -> int | None:
        self._path.write_bytes(mutant.data)
        try:
            verify_file(self._path, witness=self._witness if mutant.witnessed else None)
        except LogCorruptError as error:
            return error.position
        return None


def run(
    directory: Path, count: int, seed: int, records: int = 60, per_log: int = 500
) -> tuple[Counter[str], list[str]]:
    """So many mutations over as many logs as that takes: how many of each kind were caught, and what was not."""
    caught: Counter[str] = Counter()
    wrong: list[str] = []
    for done in range(0, count, per_log):
        mutator = Mutator(directory, seed + done, records)
        mutator.verify_original()
        wrong += [f"log {seed + done}: {why}" for _ in range(min(per_log, count - done)) if (why := mutator.mutate())]
        caught += mutator.caught
    return caught, wrong
