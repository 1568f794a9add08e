"""A pickle machine that builds symbols: it imports nothing, calls nothing, and tells a witness what would happen.

Stack, marks and memo work as in CPython's unpickler, so that what it names is what would be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from hivefold.models.passport.draft import Budget
from hivefold.models.passport.opcodes import Blob, Decoder, Opcode
from hivefold.models.passport.source import Source
from hivefold.models.passport.values import Call, Global, Listing, Opaque, Pairs, Persistent, Value
from hivefold.models.wire import MalformedError


class Witness(Protocol):
    """Is told, in order, what an unpickler would do."""

    def imports(self, name: Global) -> None:
        """It would import a name."""
        ...

    def calls(self, made: Call) -> None:
        """It would call something."""
        ...

    def changes(self, target: Value, position: int) -> None:
        """It would give state, items or entries to an object that is none of its own containers."""
        ...

    def hides(self, position: int, what: str) -> None:
        """It would do something that cannot be told from the file."""
        ...

    def asks(self, position: int) -> None:
        """It would ask its loader for an object."""
        ...


Reader = Callable[[Call, Decoder], Value]
"""Reads raw bytes that follow a BUILD, as joblib's arrays; gives what the object becomes."""


@dataclass(slots=True)
class Machine:
    """Runs one pickle. `read_raw` maps what an object was made by to the reader of the bytes behind it."""

    decoder: Decoder
    witness: Witness
    read_raw: dict[str, Reader] = field(default_factory=dict)
    _stack: list[Value] = field(default_factory=list)
    _marks: list[list[Value]] = field(default_factory=list)
    _memo: dict[int, Value] = field(default_factory=dict)

    def run(self) -> Value:
        """The value at STOP; the decoder stands behind it. Raises MalformedError, ExhaustedError."""
        for opcode in self.decoder.opcodes():
            action = self._ACTIONS.get(opcode.name)
            if action is None:
                self._stack.append(_constant(opcode))
            else:
                action(self, opcode)
        return self._pop()

    def _pop(self) -> Value:
        if not self._stack:
            raise MalformedError(f"byte {self.decoder.position}: the pickle takes more than it made")
        return self._stack.pop()

    def _top(self) -> Value:
        if not self._stack:
            raise MalformedError(f"byte {self.decoder.position}: the pickle uses something that it did not make")
        return self._stack[-1]

    def _to_mark(self) -> list[Value]:
        if not self._marks:
            raise MalformedError(f"byte {self.decoder.position}: a mark is missing")
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Opcode) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_one(self, _: Opcode) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self, _: Opcode) -> None:
        self._to_mark()

    def _dup(self, _: Opcode) -> None:
        self._stack.append(self._top())

    def _get(self, opcode: Opcode) -> None:
        index = opcode.argument
        if not isinstance(index, int) or index not in self._memo:
            raise MalformedError(f"byte {opcode.position}: the pickle remembers nothing under {index!r}")
        self._stack.append(self._memo[index])

    def _put(self, opcode: Opcode) -> None:
        if not isinstance(opcode.argument, int):
            raise MalformedError(f"byte {opcode.position}: a memo has no number")
        self._memo[opcode.argument] = self._top()

    def _memoize(self, _: Opcode) -> None:
        self._memo[len(self._memo)] = self._top()

    def _nothing(self, _: Opcode) -> None:
        """PROTO, FRAME and STOP change nothing that is seen here."""

    def _empty_list(self, _: Opcode) -> None:
        self._stack.append(Listing([]))

    def _empty_dict(self, _: Opcode) -> None:
        self._stack.append(Pairs([]))

    def _list(self, _: Opcode) -> None:
        items = self._to_mark()
        self._stack.append(Listing(items))

    def _dict(self, _: Opcode) -> None:
        items = self._to_mark()
        self._stack.append(Pairs(_paired(items)))

    def _tuple(self, _: Opcode) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _short_tuple(self, opcode: Opcode) -> None:
        size = int(opcode.name[-1])
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, opcode: Opcode) -> None:
        item = self._pop()
        self._extend([item], opcode)

    def _appends(self, opcode: Opcode) -> None:
        items = self._to_mark()
        self._extend(items, opcode)

    def _extend(self, items: list[Value], opcode: Opcode) -> None:
        match target := self._top():
            case Listing():
                target.items += items
            case _:
                self.witness.changes(target, opcode.position)
                if isinstance(target, Call):
                    target.items += items

    def _set_item(self, opcode: Opcode) -> None:
        value = self._pop()
        self._update([(self._pop(), value)], opcode)

    def _set_items(self, opcode: Opcode) -> None:
        items = self._to_mark()
        self._update(_paired(items), opcode)

    def _update(self, pairs: list[tuple[Value, Value]], opcode: Opcode) -> None:
        match target := self._top():
            case Pairs():
                target.pairs += pairs
            case _:
                self.witness.changes(target, opcode.position)
                if isinstance(target, Call):
                    target.pairs += pairs

    def _global(self, opcode: Opcode) -> None:
        if not isinstance(opcode.argument, tuple):
            raise MalformedError(f"byte {opcode.position}: an import has no name")
        self._import(*opcode.argument, opcode.position)

    def _stack_global(self, opcode: Opcode) -> None:
        name, module = self._pop(), self._pop()
        if isinstance(name, str) and isinstance(module, str):
            self._import(module, name, opcode.position)
        else:
            self.witness.hides(opcode.position, "imports a name that only a running unpickler would know")
            self._stack.append(Opaque())

    def _import(self, module: str, name: str, position: int) -> None:
        found = Global(module, name, position)
        self.witness.imports(found)
        self._stack.append(found)

    def _inst(self, opcode: Opcode) -> None:
        arguments = tuple(self._to_mark())
        self._global(opcode)
        self._call(self._pop(), arguments, opcode)

    def _obj(self, opcode: Opcode) -> None:
        items = self._to_mark()
        if not items:
            raise MalformedError(f"byte {opcode.position}: an object has no class")
        self._call(items[0], tuple(items[1:]), opcode)

    def _reduce(self, opcode: Opcode) -> None:
        arguments = self._pop()
        self._call(self._pop(), arguments, opcode)

    def _new_with_keywords(self, opcode: Opcode) -> None:
        keywords, arguments = self._pop(), self._pop()
        function = self._pop()
        self._call(function, (arguments, keywords), opcode)

    def _call(self, function: Value, arguments: Value, opcode: Opcode) -> None:
        made = Call(function, arguments, opcode.position)
        self.witness.calls(made)
        self._stack.append(made)

    def _build(self, opcode: Opcode) -> None:
        state = self._pop()
        target = self._top()
        self.witness.changes(target, opcode.position)
        if isinstance(target, Call):
            target.state = state
            reader = self.read_raw.get(target.function.path) if isinstance(target.function, Global) else None
            if reader is not None:
                self._stack[-1] = reader(target, self.decoder)

    def _persistent(self, opcode: Opcode) -> None:
        identity: Value = opcode.argument if isinstance(opcode.argument, str) else self._pop()
        self.witness.asks(opcode.position)
        self._stack.append(Persistent(identity))

    def _extension(self, opcode: Opcode) -> None:
        self.witness.hides(opcode.position, f"imports extension {opcode.argument!r} of the loading process")
        self._stack.append(Opaque())

    def _buffer(self, opcode: Opcode) -> None:
        if opcode.name == "READONLY_BUFFER":
            self._pop()
        else:
            self.witness.hides(opcode.position, "takes a buffer from outside the file")
        self._stack.append(Opaque())

    def _add_items(self, opcode: Opcode) -> None:
        self._appends(opcode)

    _ACTIONS: ClassVar[dict[str, Callable[[Machine, Opcode], None]]] = {
        **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
        **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), _short_tuple),
        **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
        **dict.fromkeys(("PERSID", "BINPERSID"), _persistent),
        **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), _buffer),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
        **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _empty_list),
        **dict.fromkeys(("LIST", "FROZENSET"), _list),
        "MARK": _mark,
        "POP": _pop_one,
        "POP_MARK": _pop_mark,
        "DUP": _dup,
        "MEMOIZE": _memoize,
        "EMPTY_DICT": _empty_dict,
        "DICT": _dict,
        "TUPLE": _tuple,
        "APPEND": _append,
        "APPENDS": _appends,
        "ADDITEMS": _add_items,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "INST": _inst,
        "OBJ": _obj,
        "NEWOBJ_EX": _new_with_keywords,
        "BUILD": _build,
    }


def run(source: Source, budget: Budget, witness: Witness, position: int = 0) -> tuple[Value, int]:
    """One pickle's value, and where it ends. Raises MalformedError, ExhaustedError."""
    machine = Machine(Decoder(source, budget, position), witness)
    return machine.run(), machine.decoder.position


def _constant(opcode: Opcode) -> Value:
    match opcode.name:
        case "NONE":
            return None
        case "NEWTRUE" | "NEWFALSE":
            return opcode.name == "NEWTRUE"
        case "EMPTY_TUPLE":
            return ()
        case _:
            return _value(opcode.argument)


def _value(argument: object) -> Value:
    return argument if isinstance(argument, int | float | str | Blob) else Opaque()


def _paired(items: list[Value]) -> list[tuple[Value, Value]]:
    if len(items) % 2:
        raise MalformedError("a pickle's dictionary has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))
