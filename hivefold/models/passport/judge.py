"""Judges what a pickle would do, step by step, and writes the evidence into the draft."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hivefold.models.passport.arrays import ARRAY_WRAPPER
from hivefold.models.passport.draft import Draft
from hivefold.models.passport.facts import Verdict
from hivefold.models.passport.opcodes import Blob
from hivefold.models.passport.trust import judged
from hivefold.models.passport.values import (
    RECONSTRUCTORS,
    Call,
    Global,
    Listing,
    Opaque,
    Pairs,
    Value,
    called,
    integers,
)

_CLAIM: Final = 1 << 24
"""What a pickle may ask for by a number alone, in elements."""
_DTYPE: Final = re.compile(r"[<>|=]?[a-zA-Z?]{1,2}[0-9]{0,5}(\[\w+\])?")
_COUNTS: Final = frozenset(
    {"builtins", "__builtin__", "numpy", "collections", "scipy", "sklearn", "copyreg", "copy_reg"}
)
_CONVERTS: Final = frozenset({"bytearray", "bytes", "range", "int", "float", "str"})
_STORAGE: Final = re.compile(r"torch\.(\w*Storage|storage\.\w+)|torch\.(Tensor|nn\.parameter\.\w+)")


@dataclass(slots=True)
class Judge:
    """The witness of one pickle. `provided`: its loader gives persistent objects, as PyTorch's does."""

    draft: Draft
    place: str
    provided: bool = False
    own_classes: str = ""
    """Beginning of the names that the archive itself defines, as TorchScript's `__torch__`."""
    wraps_arrays: bool = False
    """Whether it imported joblib's wrapper, behind which raw arrays lie between the opcodes."""

    def imports(self, name: Global) -> None:
        """An import of anything that is not known to be harmless is evidence."""
        self.wraps_arrays |= name.path == ARRAY_WRAPPER
        if self.own_classes and name.module.split(".")[0] == self.own_classes:
            return
        match judged(name.module, name.name):
            case Verdict.UNSAFE:
                self._add(Verdict.UNSAFE, "pickle-dangerous-import", name.position, f"imports {name.path}")
            case Verdict.SUSPICIOUS:
                what = f"imports {name.path}, which is not on the list of harmless names"
                self._add(Verdict.SUSPICIOUS, "pickle-unknown-import", name.position, what)
            case _:
                pass

    def calls(self, made: Call) -> None:
        """A call of something computed is how imports are hidden; some harmless names are not so with any argument."""
        match made.function:
            case Global() as function:
                if why := _abuse(function, made.arguments):
                    self._add(Verdict.SUSPICIOUS, "pickle-odd-arguments", made.position, f"{function.path} {why}")
            case Opaque():
                self._add(Verdict.UNSAFE, "pickle-hidden-call", made.position, "calls something that cannot be told")
            case _:
                self._add(Verdict.UNSAFE, "pickle-computed-call", made.position, "calls something that it computed")

    def changes(self, target: Value, position: int) -> None:
        """State belongs into objects that the pickle made."""
        if not isinstance(target, Call):
            what = "changes something that it did not make"
            self._add(Verdict.SUSPICIOUS, "pickle-foreign-change", position, what)

    def hides(self, position: int, what: str) -> None:
        """What cannot be told cannot be promised."""
        self._add(Verdict.SUSPICIOUS, "pickle-hidden", position, what)

    def asks(self, position: int) -> None:
        """A loader that gives objects by id may do anything; PyTorch's gives storages."""
        if not self.provided:
            what = "asks its loader for an object: what that does is not in the file"
            self._add(Verdict.SUSPICIOUS, "pickle-persistent", position, what)

    def _add(self, verdict: Verdict, code: str, position: int, what: str) -> None:
        self.draft.find(verdict, code, f"{self.place}, byte {position}", what)


def _abuse(function: Global, given: Value) -> str:
    """What is wrong with the arguments of a name that is harmless otherwise; "" when nothing is."""
    arguments = given if isinstance(given, tuple) else ()
    first = arguments[0] if arguments else None
    path, name = function.path, function.name
    if not isinstance(given, tuple):
        return "is called with arguments that cannot be told"
    if path in RECONSTRUCTORS and not isinstance(first, Global):
        return "is given a class that it computed"
    if path == "_codecs.encode" and not _to_latin1(arguments):
        return "is used as a decoder"
    counts = function.module.split(".")[0] in _COUNTS and not name.startswith("__pyx_unpickle_")
    if counts and any(_large(item) for item in arguments):
        return "makes something huge from a number"
    if name in _CONVERTS and any(isinstance(item, Call) for item in arguments):
        return "converts an object"
    if path.endswith("multiarray._reconstruct"):
        return _odd_array(arguments)
    if path == "numpy.dtype" or path.endswith("multiarray.scalar"):
        return _odd_type(first)
    if path == "torch._tensor._rebuild_from_type_v2":
        return "" if isinstance(first, Global) and first.module == "torch._utils" else "calls what it is given"
    if path.startswith("torch.nn.modules.") and arguments and arguments != ((), None):
        return "is built anew, where a module's state would do"
    if _STORAGE.fullmatch(path) and any(isinstance(item, int) and item > 0 for item in arguments):
        return "makes memory from a number"
    return ""


def _to_latin1(arguments: tuple[Value, ...]) -> bool:
    """How Python 2's byte strings are kept. Never a text made of a value: one of those would not end."""
    encoding = arguments[1] if len(arguments) > 1 else None
    return isinstance(encoding, str) and encoding.lower() in {"latin1", "latin-1"}


def _large(value: Value) -> bool:
    match value:
        case bool():
            return False
        case int():
            return abs(value) > _CLAIM
        case tuple():
            return any(isinstance(item, int) and abs(item) > _CLAIM for item in value)
        case Call():
            return called(value).endswith(".range")
        case Blob():
            return value.textual and value.size > _CLAIM
        case _:
            return False


def _odd_array(arguments: tuple[Value, ...]) -> str:
    if not (arguments and isinstance(arguments[0], Global) and arguments[0].path.startswith("numpy.")):
        return "makes an array of a class that is not NumPy's"
    shape = integers(arguments[1]) if len(arguments) > 1 else ()
    elements = 1
    for size in shape or ():
        elements *= size
    return "makes a huge array from a number" if shape is None or elements > _CLAIM else ""


def _odd_type(first: Value) -> str:
    match first:
        case str() if not _DTYPE.fullmatch(first):
            return f"has the element type {first!r}"
        case Call() | Global() | str() | Listing() | Pairs() | None:
            return ""
        case _:
            return "has an element type that cannot be told"
