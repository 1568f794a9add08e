"""How to reach a NATS server: values only. Read from the configuration by hivefold.config, used by the adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_HIDDEN: Final = "***"


class Secret:
    """A text that does not show itself: its repr and str are `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself; for the call that needs it and nothing else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({_HIDDEN})"

    def __str__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One connection to NATS: where, as whom, under which inbox prefix."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str = ""
    password: Secret = Secret()
    token: Secret = Secret()
    credentials_file: str = ""
    nkey_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_name: str = "hivefold"
    inbox_prefix: str = "_INBOX"
