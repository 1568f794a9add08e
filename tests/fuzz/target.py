"""What is fuzzed: any bytes give a passport of bounded size, and nothing is raised."""

from __future__ import annotations

from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Budget, Draft
from hivefold.models.passport.inspection import finished
from hivefold.models.passport.messages import from_proto, to_proto
from hivefold.models.passport.source import of_bytes

PASSPORT_BYTES = 40_000
PARTS = 200_000


def inspect(content: bytes) -> None:
    """One file. Raises AssertionError, or whatever should never be raised."""
    draft = Draft(Budget(PARTS))
    inspect_source(of_bytes("m", content), draft)
    found = finished(draft, len(content))
    message = to_proto(found)
    assert from_proto(message) == found
    assert message.ByteSize() < PASSPORT_BYTES
