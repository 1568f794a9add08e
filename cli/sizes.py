"""Options that hold sizes: bytes, or 512MiB, 2GiB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

from cli import words


def _size(_kind: type, tokens: Sequence[Token]) -> int:
    return words.parse_size(tokens[0].value)


Size = Annotated[int, Parameter(converter=_size)]
