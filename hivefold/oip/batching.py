"""How a model's requests are batched, as its labels say it: which there are, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hivefold.oip.limits import BATCH_DELAY_MAX_US, BATCH_ROWS_MAX, PREFERRED_SIZES, QUEUE_REQUESTS

PREFIX: Final = "batch."
"""Of all labels that speak of batches."""
MAX_ROWS: Final = "batch.max_rows"
MAX_DELAY_US: Final = "batch.max_delay_us"
PREFERRED_ROWS: Final = "batch.preferred_rows"
QUEUE: Final = "batch.queue"


def read_number(name: str, text: str) -> int:
    """What one of the labels that are numbers says. Raises ValueError, which says what it must be."""
    least, most = _RANGES[name]
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ValueError(f"must be a whole number from {least} to {most}, is {text[:64]!r}")
    return number


def read_sizes(text: str) -> tuple[int, ...]:
    """The sizes that a model likes best, ascending. Raises ValueError, which says what they must be."""
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or len(sizes) > PREFERRED_SIZES or sizes[0] < 1 or sizes[-1] > BATCH_ROWS_MAX:
        raise ValueError(f"must be 1 to {PREFERRED_SIZES} sizes from 1 to {BATCH_ROWS_MAX} as 8,16, is {text[:64]!r}")
    return sizes


def wrong_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Of the labels that speak of batches, those that make no sense, with what they must be."""
    wrong = {}
    for name in sorted(name for name in labels if name.startswith(PREFIX)):
        read = READERS.get(name)
        if read is None:
            wrong[name] = f"is no label of batches; there are {', '.join(READERS)}"
            continue
        try:
            read(labels[name])
        except ValueError as error:
            wrong[name] = str(error)
    return wrong


_RANGES: Final = {MAX_ROWS: (1, BATCH_ROWS_MAX), MAX_DELAY_US: (0, BATCH_DELAY_MAX_US), QUEUE: (1, QUEUE_REQUESTS)}
READERS: Final[Mapping[str, Callable[[str], object]]] = {
    MAX_ROWS: lambda text: read_number(MAX_ROWS, text),
    MAX_DELAY_US: lambda text: read_number(MAX_DELAY_US, text),
    PREFERRED_ROWS: read_sizes,
    QUEUE: lambda text: read_number(QUEUE, text),
}
"""What each label says, read from its text; they raise ValueError."""
