"""What a pickle would build, as symbols: names instead of imports, applications instead of calls.

All of them compare by identity: a hostile pickle can nest them so that comparing would not end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hivefold.models.passport.opcodes import Blob


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name that an unpickler would import."""

    module: str
    name: str
    position: int

    @property
    def path(self) -> str:
        """ "module.name"."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """An object that an unpickler would make by calling `function`, and what it would then give to it."""

    function: Value
    arguments: Value
    position: int
    state: Value = None
    pairs: list[tuple[Value, Value]] = field(default_factory=list)
    items: list[Value] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Listing:
    """A list, set or frozenset."""

    items: list[Value]


@dataclass(slots=True, eq=False)
class Pairs:
    """A dictionary, in order, with repeated keys."""

    pairs: list[tuple[Value, Value]]


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object that the loader has to provide, by its id."""

    identity: Value


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Something that only a running unpickler would know."""


Value: TypeAlias = (
    int | float | str | bool | Blob | tuple["Value", ...] | Global | Call | Listing | Pairs | Persistent | Opaque | None
)


_RANK: Final = 32
RECONSTRUCTORS: Final = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__"})
"""What makes objects of a class in the older protocols: the class is their first argument."""


def lookup(value: Value, key: str) -> Value:
    """The entry `key` of a dictionary, an ordered one, or an object's attributes; the last where it is repeated."""
    pairs: list[tuple[Value, Value]] = []
    match value:
        case Pairs():
            pairs = value.pairs
        case Call():
            pairs = value.pairs or entries(attributes(value))
        case _:
            pass
    return next((entry for name, entry in reversed(pairs) if isinstance(name, str) and name == key), None)


def attributes(value: Call) -> Value:
    """What BUILD gave to an object: its `__dict__`, also where slots come with it."""
    if isinstance(value.state, tuple) and len(value.state) == 2 and isinstance(value.state[0], Pairs | None):
        return value.state[0]
    return value.state


def called(value: Value) -> str:
    """The dotted name of what an object was made by; "" for anything else."""
    if not isinstance(value, Call) or not isinstance(value.function, Global):
        return ""
    if value.function.path in RECONSTRUCTORS and isinstance(value.arguments, tuple) and value.arguments:
        first = value.arguments[0]
        return first.path if isinstance(first, Global) else ""
    return value.function.path


def entries(value: Value) -> list[tuple[Value, Value]]:
    """The pairs of a dictionary or an OrderedDict."""
    match value:
        case Pairs():
            return value.pairs
        case Call():
            return value.pairs
        case _:
            return []


def integers(value: Value) -> tuple[int, ...] | None:
    """A tuple of numbers, as shapes are; None for anything else."""
    if isinstance(value, Call) and called(value) == "torch.Size":
        value = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, tuple) or len(value) > _RANK:
        return None
    numbers = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool))
    return numbers if len(numbers) == len(value) and all(0 <= number < 1 << 48 for number in numbers) else None
