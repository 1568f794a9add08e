"""A passport being written: parsers add what they find, bounded in count and length."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Final

from hivefold.models.passport.facts import Finding, Port, TaskFamily, Verdict
from hivefold.models.passport.limits import (
    PASSPORT_FINDINGS,
    PASSPORT_NOTES,
    PASSPORT_PARTS,
    PASSPORT_TENSORS,
    PASSPORT_TEXT,
    UNPACKED_BYTES_IN_ALL,
)
from hivefold.models.wire import MalformedError


class ExhaustedError(MalformedError):
    """The file has more parts than are looked at; the text says which."""


class Budget:
    """How much work one inspection may cost, all files and nested parts together."""

    def __init__(self, parts: int = PASSPORT_PARTS, unpacked_bytes: int = UNPACKED_BYTES_IN_ALL) -> None:
        self._parts = parts
        self._left = parts
        self._unpacked_bytes_left = unpacked_bytes

    def spend(self, parts: int = 1) -> None:
        """Counts parts that are looked at. Raises ExhaustedError when there were too many."""
        self._left -= parts
        if self._left < 0:
            raise ExhaustedError(f"it has more than {self._parts} parts")

    def unpack(self, size_bytes: int) -> None:
        """Counts bytes that are unpacked or copied. Raises ExhaustedError when they were too many."""
        self._unpacked_bytes_left -= size_bytes
        if self._unpacked_bytes_left < 0:
            raise ExhaustedError("its parts unpack to more bytes together than are looked at")


@dataclass(frozen=True, slots=True)
class Weight:
    """A stored tensor. Those at the same `offset` of the same `storage` are one, and count once."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    size_bytes: int
    storage: str = ""
    offset: int = 0
    """In elements."""
    trained: bool = True
    """False for buffers: kept with the weights, never trained."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


_LARGEST: Final = (1 << 63) - 1
_PATH: Final = 1000
_RANK: Final = 32
_WORST: Final = sorted(Verdict, key=lambda verdict: -verdict.severity)


@dataclass(slots=True)
class Draft:
    """What is known so far. `budget` is shared by all parts of one inspection."""

    budget: Budget = field(default_factory=Budget)
    batch_rows: int = 1
    format: str = "unknown"
    format_version: str = ""
    framework: str = ""
    task: TaskFamily = TaskFamily.UNSPECIFIED
    architecture: str = ""
    architecture_name: str = ""
    parameter_count: int | None = None
    weights: list[Weight] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    """Operators or layers by name, and how often: what tells families apart."""
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    activation_bytes: int | None = None
    kv_cache_token_bytes: int | None = None
    context_tokens: int = 0
    findings: list[Finding] = field(default_factory=list)
    coverage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _mildest: int = 0
    """Severity of the mildest finding: a file may give millions that are not kept."""

    def find(self, verdict: Verdict, code: str, place: str, detail: str) -> None:
        """Adds evidence. Beyond the bound the mildest goes: the verdict never gets better by more findings."""
        if len(self.findings) == PASSPORT_FINDINGS and verdict.severity <= self._mildest:
            return
        found = Finding(verdict, code, clipped(place), clipped(detail))
        if found in self.findings:
            return
        self.findings.append(found)
        if len(self.findings) > PASSPORT_FINDINGS:
            mildest = min(range(len(self.findings)), key=lambda index: (self.findings[index].verdict.severity, -index))
            del self.findings[mildest]
        self._mildest = min(finding.verdict.severity for finding in self.findings)

    def unsafe(self, code: str, place: str, detail: str) -> None:
        """Evidence that loading does harm, or can."""
        self.find(Verdict.UNSAFE, code, place, detail)

    def suspicious(self, code: str, place: str, detail: str) -> None:
        """Evidence of something that is not known to be harmless."""
        self.find(Verdict.SUSPICIOUS, code, place, detail)

    def unknown(self, code: str, place: str, detail: str) -> None:
        """Evidence that a part does not read as it should, so that nothing can be promised."""
        self.find(Verdict.UNKNOWN, code, place, detail)

    def uncovered(self, text: str) -> None:
        """Something that was not looked at: the verdict is UNKNOWN at best."""
        text = clipped(text)
        if text not in self.coverage and len(self.coverage) < PASSPORT_NOTES:
            self.coverage.append(text)

    def note(self, text: str) -> None:
        """Something worth knowing that no field holds."""
        text = clipped(text)
        if text not in self.notes and len(self.notes) < PASSPORT_NOTES:
            self.notes.append(text)

    def add_port(self, ports: list[Port], name: str, data_type: str, shape: tuple[int, ...]) -> None:
        """An input or output, up to the bound."""
        if len(ports) < PASSPORT_TENSORS:
            sizes = tuple(max(-1, min(size, _LARGEST)) for size in shape[:_RANK])
            ports.append(Port(clipped(name), data_type, sizes))
        else:
            self.note(f"only {PASSPORT_TENSORS} inputs and outputs are listed")

    @property
    def evidence(self) -> tuple[Finding, ...]:
        """The findings, the worst first."""
        return tuple(sorted(self.findings, key=lambda finding: -finding.verdict.severity))

    @property
    def verdict(self) -> Verdict:
        """By the worst finding; UNKNOWN where something was not covered."""
        found = {finding.verdict for finding in self.findings}
        if self.coverage:
            found.add(Verdict.UNKNOWN)
        return next((verdict for verdict in _WORST if verdict in found), Verdict.SAFE)


def clipped(text: str) -> str:
    """A text of the file as it may be shown: one line, printable, bounded."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: PASSPORT_TEXT + 1])
    return shown if len(shown) <= PASSPORT_TEXT else f"{shown[: PASSPORT_TEXT - 3]}..."


def joined(path: str, key: str, between: str) -> str:
    """The name of something in something else. Of a long one the end is kept: nesting must not add up."""
    return f"{path}{between}{key}"[-_PATH:] if path else key[-_PATH:]
