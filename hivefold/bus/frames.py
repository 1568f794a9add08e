"""Commands of the NATS client protocol as bytes, for paths where a call per message is too slow. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hivefold.errors import InvalidRequestError, LimitExceededError
from hivefold.limits import BROKER_MESSAGE_BYTES

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
_HEADER_ROOM: Final = 8 * 1024
_VERSION: Final = b"NATS/1.0\r\n"


def subject_bytes(subject: str) -> bytes:
    """The subject for the wire. Raises InvalidRequestError where it would break the protocol."""
    if not subject or _UNSAFE.search(subject):
        raise InvalidRequestError(f"{subject!r} is not a NATS subject; it may hold no blanks or control characters")
    return subject.encode()


def check_length(subject: str, length: int) -> None:
    """Raises LimitExceededError for a message to store that no server takes."""
    if length > BROKER_MESSAGE_BYTES - _HEADER_ROOM:
        raise LimitExceededError(
            f"the message for {subject} has {length} bytes; store the content as a blob and send its digest"
        )


def publish(subject: bytes, data: bytes, *, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """One message to publish. `headers` is what header_block returns."""
    if headers:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(headers), len(headers) + len(data), headers, data)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data)


def publish_head(subject: bytes, size: int, *, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """What comes before the `size` bytes of data of one message; a line break follows them."""
    if headers:
        return b"HPUB %b %b %d %d\r\n%b" % (subject, reply, len(headers), len(headers) + size, headers)
    return b"PUB %b %b %d\r\n" % (subject, reply, size)


def header_block(headers: Mapping[str, str]) -> bytes:
    """The headers for the wire; line breaks in values become blanks."""
    lines = [f"{name}: {value.replace(chr(13), ' ').replace(chr(10), ' ')}\r\n" for name, value in headers.items()]
    return _VERSION + "".join(lines).encode() + b"\r\n"


def parse_headers(block: bytes | None) -> dict[str, str]:
    """Headers as received, names in lower case: some servers and clients change the case."""
    if not block:
        return {}
    found: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.strip().lower().decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return found


def status_of(block: bytes | None) -> tuple[int, str]:
    """The in-line status of a server's answer, as (404, "No Messages"); (0, "") when there is none."""
    if not block or block[8:9] != b" ":
        return 0, ""
    code, _, text = block[9 : block.index(b"\r\n")].partition(b" ")
    return (int(code), text.decode("utf-8", "replace")) if code.isdigit() else (0, "")
