"""Laws of passports: whatever the bytes, the answer is a passport of bounded size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Draft
from hivefold.models.passport.facts import Passport, Verdict
from hivefold.models.passport.inspection import finished
from hivefold.models.passport.messages import from_proto, to_proto
from hivefold.models.passport.source import of_bytes
from tests.fixtures.passports import FILES

CONTENTS = [path.read_bytes() for path in FILES if path.stat().st_size < 32_768]
ODD = st.sampled_from([b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", b"\x80", b"\xff" * 7 + b"\x7f", b"PK\x05\x06"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real file with bytes replaced, taken out, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(CONTENTS)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        taken = draw(st.integers(0, 16))
        data[place : place + taken] = draw(st.one_of(ODD, st.binary(max_size=16)))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def inspected(content: bytes) -> Passport:
    draft = Draft()
    inspect_source(of_bytes("m", content), draft)
    found = finished(draft, len(content))
    assert from_proto(to_proto(found)) == found
    return found


@given(damaged())
def test_a_damaged_file_gives_a_passport(content: bytes) -> None:
    """Nothing is raised, and evidence stays bounded."""
    found = inspected(content)

    assert isinstance(found.safety.verdict, Verdict)
    assert to_proto(found).ByteSize() < 40_000


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\x80\x04", b"GGUF", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x08\x07"]),
)
def test_random_bytes_give_a_passport(content: bytes, magic: bytes) -> None:
    """Whatever format they claim to be."""
    assert isinstance(inspected(magic + content).safety.verdict, Verdict)


@given(
    st.lists(
        st.sampled_from(
            [
                b"N",
                b"(",
                b"0",
                b"2",
                b"R",
                b"b",
                b"\x93",
                b"\x94",
                b"h\x00",
                b"t",
                b"e",
                b"u",
                b"]",
                b"}",
                b"cos\nsystem\n",
                b"ccollections\nOrderedDict\n",
                b"\x8c\x02os",
                b"o",
                b"\x81",
                b")",
            ]
        )
    )
)
def test_a_pickle_that_names_system_is_never_safe(parts: list[bytes]) -> None:
    """In whatever order its opcodes come: once it is imported, nothing takes that back."""
    content = b"\x80\x04" + b"".join(parts) + b"."
    if b"cos\nsystem\n" in parts:
        assert inspected(content).safety.verdict is not Verdict.SAFE
