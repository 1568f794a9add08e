"""What a passport says of a model. Plain values: the coordinator's core keeps them with the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """How safe loading the file is. Ordered by `severity`: the worst finding decides."""

    SAFE = "SAFE"
    """Everything was looked at, and nothing but known, harmless parts was found."""
    UNKNOWN = "UNKNOWN"
    """Something could not be looked at; the coverage says what."""
    SUSPICIOUS = "SUSPICIOUS"
    """Loading may run code or read files that are not known to be harmless."""
    UNSAFE = "UNSAFE"
    """Loading runs code, reads or writes files, or takes the machine down."""

    @property
    def severity(self) -> int:
        """0 for SAFE to 3 for UNSAFE."""
        return _SEVERITIES[self]


_SEVERITIES: Final = {verdict: severity for severity, verdict in enumerate(Verdict)}


class TaskFamily(StrEnum):
    """What kind of data the model is for."""

    UNSPECIFIED = "UNSPECIFIED"
    NLP = "NLP"
    VISION = "VISION"
    TABULAR = "TABULAR"
    REINFORCEMENT = "REINFORCEMENT"
    AUDIO = "AUDIO"


class Complexity(StrEnum):
    """Size class by parameters: SMALL < 1e6 <= MEDIUM < 1e8 <= LARGE < 1e9 <= XLARGE."""

    UNSPECIFIED = "UNSPECIFIED"
    SMALL = "SMALL"
    MEDIUM = "MEDIUM"
    LARGE = "LARGE"
    XLARGE = "XLARGE"


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of evidence: how bad, a stable code, where in the file, and what it is."""

    verdict: Verdict
    code: str
    place: str
    detail: str


@dataclass(frozen=True, slots=True)
class Safety:
    """The verdict with its evidence, and what was not covered. No evidence and full coverage is SAFE."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    coverage: tuple[str, ...] = ()
    """What was not looked at, a sentence each."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: element type as "FP32", shape with -1 where any size is accepted."""

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Precision:
    """How many parameters are stored with one element type, and in how many bytes."""

    data_type: str
    parameter_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What running the model takes. Sizes in bytes; None where the file does not tell."""

    weight_bytes: int | None
    activation_bytes: int | None
    """Most bytes of intermediate tensors alive at once, for `batch_rows` rows."""
    batch_rows: int
    kv_cache_token_bytes: int | None
    """Bytes of keys and values that one token of one sequence keeps, in 16 bits an element."""
    context_tokens: int
    complexity: Complexity
    cores: int
    memory_bytes: int | None
    gpu_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Passport:
    """What a model file is, read without running or importing anything of it.

    `parameter_count` counts tensors that share storage once and leaves buffers such as running means
    out; None where the file does not tell.
    """

    format: str
    format_version: str
    framework: str
    task: TaskFamily
    architecture: str
    """Family, e.g. "transformer"."""
    architecture_name: str
    """The model's own name for it, e.g. "LlamaForCausalLM"; empty where it has none."""
    parameter_count: int | None
    precisions: tuple[Precision, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    size_bytes: int
    needs: Needs
    safety: Safety
    notes: tuple[str, ...] = ()
