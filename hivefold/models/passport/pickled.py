"""Plain pickles and joblib files: what they would do, and the scikit-learn estimator that they hold."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from math import prod
from typing import Final

from hivefold.models.passport import estimators
from hivefold.models.passport.arrays import ARRAY_WRAPPER, bits_of
from hivefold.models.passport.draft import Budget, Draft, ExhaustedError
from hivefold.models.passport.facts import Verdict
from hivefold.models.passport.judge import Judge
from hivefold.models.passport.limits import PICKLE_PICKLES, UNPACKED_BYTES
from hivefold.models.passport.machine import Machine, run
from hivefold.models.passport.opcodes import Decoder
from hivefold.models.passport.source import Source, of_bytes
from hivefold.models.passport.values import Call, Pairs, Value, integers, lookup
from hivefold.models.wire import MalformedError

_OPENINGS: Final = frozenset(
    bytes([code]) for code in b"(])}cIJKMLNVSUTXFGPi\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8f\x95BC"
)
_PROBED: Final = 10_000
PACKED: Final = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31), b"x\x01": zlib.decompressobj, b"x\x5e": zlib.decompressobj,
    b"x\x9c": zlib.decompressobj, b"x\xda": zlib.decompressobj, b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(memlimit=UNPACKED_BYTES),
    b"\x5d\x00": lambda: lzma.LZMADecompressor(memlimit=UNPACKED_BYTES),
}  # fmt: skip
"""How joblib packs: gzip, zlib, bzip2, xz and lzma, by their first bytes."""


def looks(source: Source) -> bool:
    """Whether the bytes read as a pickle without a header, protocol 0 or 1, for as long as it takes to tell."""
    draft = Draft(Budget(_PROBED))
    return _reads(source, draft) or bool(draft.findings)


def hidden(source: Source, draft: Draft) -> None:
    """Evidence where a file of another format is a harmful pickle, too: pickle.load does not ask what else it is."""
    # A zip archive's "P" would ask the loader for an object at once, which pickle.load refuses.
    if source.head(1) == b"P" or not _reads(source, Draft(Budget(_PROBED))):
        return
    inner = Draft(draft.budget)
    walk(source, inner, Judge(inner, source.name))
    if inner.verdict.severity > Verdict.UNKNOWN.severity:
        draft.suspicious("polyglot", source.name, "reads as a pickle, too: other loaders may run another file in it")
        for finding in inner.findings:
            draft.find(finding.verdict, finding.code, finding.place, finding.detail)


def _reads(source: Source, draft: Draft) -> bool:
    """Whether a pickle without a header reads to its end, or for longer than is tried."""
    if source.head(1) not in _OPENINGS:
        return False
    try:
        run(source, draft.budget, Judge(draft, source.name))
    except ExhaustedError:
        return True
    except MalformedError:
        return False
    return True


def inspect_packed(source: Source, draft: Draft) -> None:
    """A pickle inside a compressed file. Raises MalformedError."""
    make: Callable[[], object] = next(make for magic, make in PACKED.items() if source.head(8).startswith(magic))
    if source.size > UNPACKED_BYTES:
        raise MalformedError(f"it is packed and has {source.size} bytes, more than are looked at")
    try:
        state = make()
        data: bytes = state.decompress(source.at(0, source.size), UNPACKED_BYTES + 1)  # type: ignore[attr-defined]
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise MalformedError("it does not unpack") from error
    if len(data) > UNPACKED_BYTES:
        draft.format = "packed"
        draft.uncovered(f"it unpacks to more than {UNPACKED_BYTES} bytes, which are not looked at")
        return
    if not data.startswith(b"\x80"):
        raise MalformedError("what is packed in it is no pickle")
    inspect(of_bytes(source.name, data), draft)
    if behind := len(state.unused_data):  # type: ignore[attr-defined]
        draft.uncovered(f"{behind} bytes behind what is packed are not looked at")


def inspect(source: Source, draft: Draft) -> None:
    """A pickle. Raises nothing: what does not read is evidence."""
    draft.format, draft.format_version = "pickle", _protocol(source)
    judge = Judge(draft, source.name)
    root = _plain(source, draft, judge)
    if judge.wraps_arrays:
        root = _with_arrays(source, draft)
    estimators.describe(root, draft)


def walk(source: Source, draft: Draft, judge: Judge) -> Value:
    """One pickle that is a part of something else. Damage is evidence; gives None then."""
    try:
        return run(source, draft.budget, judge)[0]
    except MalformedError as error:
        draft.unknown("pickle-broken", source.name, f"does not read to its end: {error}")
        return None


def _plain(source: Source, draft: Draft, judge: Judge) -> Value:
    """As pickle.load reads it: the first pickle is what counts, others behind it are looked at as well."""
    root: Value = None
    position = 0
    for index in range(PICKLE_PICKLES):
        try:
            value, position = run(source, draft.budget, judge, position)
        except MalformedError as error:
            if index:
                draft.uncovered(f"{source.size - position} bytes behind the pickle are not looked at")
            else:
                draft.unknown("pickle-broken", source.name, f"does not read to its end: {error}")
            return root
        root = root if index else value
        if position == source.size:
            return root
    draft.uncovered(f"more than {PICKLE_PICKLES} pickles follow each other")
    return root


def _with_arrays(source: Source, draft: Draft) -> Value:
    """As joblib.load reads it: raw arrays lie between the opcodes. pickle.load, which sees them as opcodes, fails."""
    broken = [finding for finding in draft.findings if finding.code == "pickle-broken"]
    for finding in broken:
        draft.findings.remove(finding)
    draft.coverage.clear()
    draft.format = "joblib"
    judge = Judge(draft, source.name)

    def array(wrapper: Call, decoder: Decoder) -> Value:
        return _skipped(source, draft, wrapper, decoder)

    machine = Machine(Decoder(source, draft.budget), judge, {ARRAY_WRAPPER: array})
    try:
        value = machine.run()
    except MalformedError as error:
        draft.unknown("pickle-broken", source.name, f"does not read to its end: {error}")
        return None
    if machine.decoder.position != source.size:
        draft.uncovered(f"{source.size - machine.decoder.position} bytes behind the pickle are not looked at")
    return value


def _skipped(source: Source, draft: Draft, wrapper: Call, decoder: Decoder) -> Value:
    """Moves the decoder behind a raw array; an array of objects is one more pickle."""
    state = wrapper.state if isinstance(wrapper.state, Pairs) else Pairs([])
    draft.budget.spend(len(state.pairs))
    shape, aligned = integers(lookup(state, "shape")), lookup(state, "numpy_array_alignment_bytes")
    bits = bits_of(lookup(state, "dtype"))
    if shape is None or bits is None or not isinstance(aligned, int | None):
        raise MalformedError(f"byte {decoder.position}: an array's shape or type cannot be told")
    if bits == 0:
        value, decoder.position = run(source, draft.budget, Judge(draft, source.name), decoder.position)
        return value
    padding = 0 if aligned is None else 1 + source.integer(decoder.position, 1)
    end = decoder.position + padding + prod(shape) * bits // 8
    if end > source.size:
        raise MalformedError(f"byte {decoder.position}: an array is longer than the file")
    decoder.position = end
    return wrapper


def _protocol(source: Source) -> str:
    head = source.head(2)
    return f"protocol {head[1]}" if head[:1] == b"\x80" and len(head) == 2 else "protocol 0 or 1"
