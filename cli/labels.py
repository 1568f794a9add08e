"""NAME=VALUE options."""

from __future__ import annotations

from collections.abc import Iterable

from hivefold.errors import InvalidRequestError


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Labels out of "name=value" texts. Raises InvalidRequestError."""
    labels = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidRequestError(f"{text!r} is no label: write NAME=VALUE, e.g. team=vision")
        labels[name] = value
    return labels
