"""Which key signs a log, as its records tell it one by one (docs/log-format.md, rules 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

from hivefold.limits import SIGNING_KEYS_KEPT
from hivefold.proof.keys import KeyStatement, PublicKey


def check_keys(keys: Sequence[KeyStatement], chain_id: bytes) -> None:
    """Raises ProofError unless each key follows the one before it; what the first one follows is not looked at."""
    previous: PublicKey | None = None
    for statement in keys:
        previous = statement.check(chain_id, previous) if previous is not None else statement.known()


class KeyHistory:
    """The keys of a log, oldest first.

    `keys` are those before the first record that is read. Where a log is read from a later record on and they are
    not known, the first checkpoint names them.
    """

    def __init__(self, keys: Sequence[KeyStatement] = (), *, from_first_record: bool = True) -> None:
        self._keys = list(keys)
        self._incomplete = not from_first_record and not keys

    @property
    def last(self) -> PublicKey | None:
        """The key that signs now; None while none does."""
        return PublicKey(self._keys[-1].public_key) if self._keys else None

    def names(self, key_id: str) -> bool:
        """Whether the key is among them."""
        return any(key.key_id == key_id for key in self._keys)

    def change(self, statement: KeyStatement, chain_id: bytes) -> None:
        """Another key signs from now on. Raises ProofError when it may not."""
        if self._incomplete and not self._keys:
            statement.known()  # which key it follows, nothing here tells: the first checkpoint will
        else:
            statement.check(chain_id, self.last)
        self._keys.append(statement)

    def signer(self, named: Sequence[KeyStatement], chain_id: bytes) -> PublicKey | None:
        """The key that signs a checkpoint which names these keys; None when the log's are others. Raises ProofError."""
        if self._incomplete and named:
            check_keys(named, chain_id)
            if list(named[-len(self._keys) :]) == self._keys or not self._keys:
                self._keys, self._incomplete = list(named), False
        return self.last if list(named) == self._keys[-SIGNING_KEYS_KEPT:] else None
