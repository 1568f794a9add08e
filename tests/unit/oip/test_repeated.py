"""Requests that are read by their beginning: the same result as the long way, whatever comes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hivefold.errors import HivefoldError
from hivefold.oip.limits import REPEATED_HEADS, REPEATED_MISSES
from hivefold.oip.repeated import Repeated
from hivefold.oip.requests import InferRequest, address, open_request, write_request
from hivefold.oip.tensors import WireTensor

TENSOR = WireTensor("x", "FP32", (1, 2), bytes(range(8)))
REQUEST = InferRequest("m", "", "", (TENSOR,), ("y",), 1, 2500)
DATA: bytes = write_request(REQUEST).SerializeToString()


def encoded(**changes: Any) -> bytes:
    data: bytes = write_request(REQUEST._replace(**changes)).SerializeToString()
    return data


def read(data: bytes, by: Repeated | None = None) -> InferRequest | str:
    """The request, or the words with which it is refused."""
    try:
        return open_request(by.address(data) if by is not None else address(data))
    except HivefoldError as error:
        return error.message


def repeated() -> Repeated:
    found = Repeated()
    found.address(DATA)
    return found


def test_a_request_like_one_before_is_read_with_its_own_bytes() -> None:
    """All else is as it was, and nothing of the message is read again."""
    other = encoded(inputs=(TENSOR._replace(data=b"12345678"),))
    asked = repeated().address(other)
    assert asked.message is None
    assert open_request(asked) == REQUEST._replace(inputs=(TENSOR._replace(data=b"12345678"),))


def test_a_refused_request_is_refused_again() -> None:
    """What was not found right is not kept."""
    wrong = encoded(inputs=(TENSOR._replace(shape=(1, 3)),))
    reader = repeated()
    assert [read(wrong, reader), read(wrong, reader)] == [read(wrong)] * 2
    assert "takes 12 bytes" in str(read(wrong))


@pytest.mark.parametrize("data_type", ["BYTES"])
def test_elements_of_bytes_are_counted_in_each_request(data_type: str) -> None:
    """Their bytes say whether they are right: the beginning does not."""
    reader = Repeated()
    good = encoded(inputs=(WireTensor("x", data_type, (1,), b"\x02\0\0\0ab"),))
    bad = good[:-6] + b"\x09\0\0\0ab"
    assert read(good, reader) == read(good)
    assert read(bad, reader) == read(bad)
    assert isinstance(read(bad), str)


def test_contents_that_only_look_like_the_last_field_are_not_taken_for_it() -> None:
    """An unknown field at the end may hold what looks like raw contents."""
    hidden = DATA[-10:]
    reader = Repeated()
    first = DATA + b"\xa2\x06" + bytes([len(hidden)]) + hidden
    second = first[:-8] + b"ABCDEFGH"
    assert read(first, reader) == REQUEST
    assert read(second, reader) == REQUEST


@given(st.binary(max_size=12), st.integers(0, len(DATA)), st.integers(0, 12))
@example(b"", 0, 0)
@example(DATA[-10:], len(DATA), 0)
def test_whatever_is_changed_the_result_is_that_of_the_long_way(piece: bytes, at: int, cut: int) -> None:
    """Bytes put in, left out or replaced anywhere, after the original was read, and a second time."""
    data = DATA[:at] + piece + DATA[at + cut :]
    reader = repeated()
    assert read(data, reader) == read(data)
    assert read(data, reader) == read(data)


def test_beginnings_that_nobody_sends_any_more_make_room() -> None:
    """No more are kept than may be; after many misses new ones are."""
    reader = Repeated()
    for number in range(REPEATED_HEADS + REPEATED_MISSES - 1):
        reader.address(encoded(timeout_us=number + 1))
    assert reader.address(encoded(timeout_us=REPEATED_HEADS)).message is None
    assert reader.address(DATA).message is not None
    assert reader.address(DATA).message is None
