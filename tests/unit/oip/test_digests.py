"""Digests of tensors: what they are of, and what they are not."""

from __future__ import annotations

import hashlib
import struct

import pytest

from hivefold.oip.digests import TensorDigester
from hivefold.oip.tensors import WireTensor

SALT = bytes(range(32))
X = WireTensor("x", "FP32", (2, 1), struct.pack("<2f", 1, 2))
LONG = WireTensor("longer", "BYTES", (1,), b"\x03\0\0\0abc")


def test_a_digest_is_what_its_page_says() -> None:
    """Written out from docs/inference-audit.md; tensors by name, in whichever order they came."""
    text = b"hivefold-tensors-v1\0" + SALT + struct.pack(">I", 2)
    text += struct.pack(">I", 6) + b"longer" + struct.pack(">I", 5) + b"BYTES" + struct.pack(">IQ", 1, 1)
    text += struct.pack(">Q", 7) + b"\x03\0\0\0abc"
    text += struct.pack(">I", 1) + b"x" + struct.pack(">I", 4) + b"FP32" + struct.pack(">IQQ", 2, 2, 1)
    text += struct.pack(">Q", 8) + struct.pack("<2f", 1, 2)

    digester = TensorDigester(SALT)

    assert digester.digest([X, LONG]) == digester.digest([LONG, X]) == hashlib.sha256(text).digest()


@pytest.mark.parametrize(
    "other",
    [
        X._replace(name="y"),
        X._replace(data_type="INT32"),
        X._replace(shape=(1, 2)),
        X._replace(shape=(2,)),
        X._replace(data=struct.pack("<2f", 1, 3)),
    ],
)
def test_any_difference_shows(other: WireTensor) -> None:
    """Name, type, shape, values."""
    digester = TensorDigester(SALT)

    assert digester.digest([X]) != digester.digest([other])


def test_another_salt_is_another_digest() -> None:
    """So that what was asked in two batches cannot be told to be the same by who has no salt."""
    assert TensorDigester(SALT).digest([X]) != TensorDigester(bytes(32)).digest([X])
