"""What is fuzzed: any bytes give a passport, facts or a request within bounds, or a refusal, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivefold.errors import InvalidRequestError
from hivefold.limits import MODEL_FIELDS, MODEL_TENSORS
from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Budget, Draft
from hivefold.models.passport.inspection import finished
from hivefold.models.passport.messages import from_proto, to_proto
from hivefold.models.passport.source import of_bytes
from hivefold.models.scan import ExternalDataError, Scan
from hivefold.models.wire import MalformedError, Span, Wire
from hivefold.oip.limits import RAW_IN_PLACE_BYTES
from hivefold.oip.repeated import Repeated
from hivefold.oip.requests import InferRequest, address, open_request, write_request
from hivefold.oip.tensors import to_array
from tests.fixtures.passports import FILES

PASSPORT_BYTES = 40_000
PARTS = 200_000
REQUESTS: Final = Path(__file__).resolve().parents[1] / "golden" / "requests"


def passport(content: bytes) -> None:
    """A model file is inspected. Raises AssertionError, or whatever should never be raised."""
    draft = Draft(Budget(PARTS))
    inspect_source(of_bytes("m", content), draft)
    found = finished(draft, len(content))
    message = to_proto(found)
    assert from_proto(message) == found
    assert message.ByteSize() < PASSPORT_BYTES


def scan(content: bytes) -> None:
    """An ONNX file is walked, as before it is loaded. Raises as `passport`."""
    found = Scan(Wire(content, MODEL_FIELDS))
    with suppress(MalformedError, ExternalDataError):
        found.model(Span(0, len(content)))
        assert found.outputs
        assert len(found.inputs) <= MODEL_TENSORS


def request(content: bytes) -> None:
    """A request for inference is read, each way that it may be. Raises as `passport`."""
    read = _read(content)
    repeated = Repeated()
    for _ in range(2):
        with suppress(InvalidRequestError):
            again = open_request(repeated.address(content))
            assert _bytes(again) == _bytes(read)
    if read is None:
        return
    for tensor in read.inputs:
        assert to_array(tensor).shape == tensor.shape
    written = write_request(read).SerializeToString()
    assert _bytes(_read(written)) == _bytes(read)
    # Padded behind with a field that nobody knows: large ones are read in place, and groups, which are long gone from
    # protobuf, are refused then.
    large = content + b"\xfa\x7f" + _length(RAW_IN_PLACE_BYTES) + bytes(RAW_IN_PLACE_BYTES)
    in_place = _read(large)
    assert in_place is None or _bytes(in_place) == _bytes(read)


def _read(content: bytes) -> InferRequest | None:
    try:
        return open_request(address(content))
    except InvalidRequestError:
        return None


def _bytes(read: InferRequest | None) -> object:
    """A request for comparison: its tensors' bytes may be views."""
    assert read is not None
    return read._replace(inputs=tuple(tensor._replace(data=bytes(tensor.data)) for tensor in read.inputs))


def _length(size: int) -> bytes:
    return bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))


@dataclass(frozen=True, slots=True)
class Target:
    """What is done with bytes, the files that they are made from, and how many of them in a bounded run."""

    take: Callable[[bytes], None]
    corpus: Sequence[Path]
    count: int


TARGETS: Final[Mapping[str, Target]] = {
    "passport": Target(passport, FILES, 400),
    "scan": Target(scan, [path for path in FILES if path.suffix == ".onnx"], 400),
    "request": Target(request, sorted(REQUESTS.iterdir()), 10_000),
}
