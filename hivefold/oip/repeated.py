"""Requests that differ from one that was read before in the bytes of their one raw tensor only: most of them.

Whatever stands before those bytes, their length included, is looked up as it is; if it was read once, and what it
says was found right, that need not be done again. Everything else goes the long way, to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hivefold.errors import InvalidRequestError
from hivefold.oip.limits import RAW_IN_PLACE_BYTES, REPEATED_HEADS, REPEATED_MISSES
from hivefold.oip.requests import Addressed, InferRequest, address, open_request, raw_at_end
from hivefold.oip.tensors import WireTensor


@dataclass(slots=True)
class Head:
    """What requests say before their raw bytes, which begin at `start`. `route` is for who reads them to keep."""

    request: InferRequest
    start: int
    route: Any = None

    def with_bytes(self, data: bytes) -> InferRequest:
        """The request that these bytes are, whose head this is."""
        name, version, _, ((tensor, data_type, shape, _),), outputs, priority, timeout_us, mark_final = self.request
        inputs = (WireTensor(tensor, data_type, shape, data[self.start :]),)
        return InferRequest(name, version, "", inputs, outputs, priority, timeout_us, mark_final)


class Repeated:
    """Reads requests, and keeps the beginnings of some."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}
        """Where the raw bytes begin in messages of a length."""
        self._heads: dict[bytes, Head] = {}
        self._missed = 0

    def head(self, data: bytes) -> Head | None:
        """The head of a request, if one with the same was read and checked before."""
        start = self._starts.get(len(data))
        return None if start is None else self._heads.get(data[:start])

    def address(self, data: bytes) -> Addressed:
        """As hivefold.oip.requests.address. Raises InvalidRequestError for bytes that are no request."""
        head = self.head(data)
        if head is not None:
            opened = head.with_bytes(data)
            return Addressed(opened.model_name, opened.model_version, "", None, (), opened)
        asked = address(data)
        if not asked.id and len(asked.raw) == 1 and len(data) < RAW_IN_PLACE_BYTES and self._room():
            self._keep(data, asked)
        return asked

    def _room(self) -> bool:
        """Whether one more may be kept. When all are taken, they go after many requests that none of them was like."""
        if len(self._heads) < REPEATED_HEADS:
            return True
        self._missed += 1
        if self._missed < REPEATED_MISSES:
            return False
        self._missed = 0
        self._heads.clear()
        self._starts.clear()
        return True

    def _keep(self, data: bytes, asked: Addressed) -> None:
        try:
            request = open_request(asked)
        except InvalidRequestError:
            return
        start = raw_at_end(data)
        # The elements of BYTES are counted: their bytes are looked at in each request.
        if start is not None and request.inputs[0].data_type != "BYTES":
            (tensor,) = request.inputs
            self._starts[len(data)] = start
            self._heads[data[:start]] = Head(request._replace(inputs=(tensor._replace(data=b""),)), start)
