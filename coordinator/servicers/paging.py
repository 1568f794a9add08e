"""Page sizes, and page tokens that only come from here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from hivefold.errors import FieldViolation, InvalidRequestError
from hivefold.limits import PAGE_DEFAULT, PAGE_MAX

_T = TypeVar("_T")
_CHECK_BYTES: Final = 6
_TOKEN_CHARACTERS: Final = 512


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Some items, and the token of the next page; "" on the last."""

    items: Sequence[_T]
    next_token: str


class Pager:
    """Reads and makes the page tokens of one list.

    A token names the last item given and is bound to the list and its filters: with other filters, or
    altered, it is refused rather than answered with the wrong page.
    """

    def __init__(self, list_name: str, filters: object, page_size: int, page_token: str) -> None:
        self._scope = json.dumps([list_name, filters], sort_keys=True).encode()
        self.size = min(page_size or PAGE_DEFAULT, PAGE_MAX)
        self.after = self._read(page_token) if page_token else ""

    def page(self, items: Iterable[tuple[str, _T]]) -> Page[_T]:
        """The first of the items that come after `after`, given with their keys."""
        taken = list(islice(items, self.size + 1))
        more = len(taken) > self.size
        kept = taken[: self.size]
        return Page([item for _, item in kept], self._token(kept[-1][0]) if more else "")

    def _token(self, key: str) -> str:
        return base64.urlsafe_b64encode(self._check(key) + key.encode()).decode().rstrip("=")

    def _read(self, token: str) -> str:
        try:
            raw = base64.b64decode(token[:_TOKEN_CHARACTERS] + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            key = raw[_CHECK_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise _refused() from None
        if raw[:_CHECK_BYTES] != self._check(key):
            raise _refused()
        return key

    def _check(self, key: str) -> bytes:
        return hashlib.sha256(b"%s\0%s" % (self._scope, key.encode())).digest()[:_CHECK_BYTES]


def _refused() -> InvalidRequestError:
    fix = "must be a next_page_token of the same list with the same filters; leave it empty to start again"
    return InvalidRequestError(f"page_token {fix}", violations=[FieldViolation("page_token", fix)])
