"""What must hold of segments, checkpoints and witnesses: by the stored bytes alone, and by hashing them anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coordinator.core import events as ev
from coordinator.wire.records import LogRecord
from hivefold.log.file import LogFileReader
from hivefold.log.port import CLOSE_SUBJECT, TERM_SUBJECT, Stored
from hivefold.log.segments import Segment
from hivefold.proof.checkpoint import read_note
from hivefold.proof.extension import Proven
from hivefold.proof.keys import PublicKey
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint

if TYPE_CHECKING:
    from coordinator.core.model import State
    from tests.simulation.archive import SimArchive


class Proofs:
    """Hashes the log by itself; `hold` fails the run when its first argument is false."""

    def __init__(self, hold: Callable[[bool, str], None], states: Sequence[State]) -> None:
        self._hold = hold
        self._states = states
        self.hashes: list[bytes] = []
        """Of each record, in order."""
        self.signed_sizes: list[int] = []
        """Of each checkpoint that was stored, in order."""
        self._closing: int | None = None
        """The segment that the last record closed."""
        self._subtrees: dict[tuple[int, int], bytes] = {}
        self._roots: dict[int, bytes] = {}
        self._believed: dict[str, int] = {}

    # -- segments ------------------------------------------------------------------

    def recorded(self, stored: Stored, record: LogRecord) -> None:
        """The log took a record."""
        self.hashes.append(record.hash)
        closing, self._closing = self._closing, None
        at = f"record {stored.sequence}"
        if closing is not None:
            self._hold(stored.subject == TERM_SUBJECT, f"{at} follows the end of segment {closing} and opens no other")
        for event in record.events:
            if isinstance(event, ev.SegmentClosed):
                self._hold(stored.subject == CLOSE_SUBJECT, f"{at} closes a segment and the broker cannot tell")
                self._closing = event.segment
            elif isinstance(event, ev.SegmentOpened):
                follows = closing is not None and event.segment == closing + 1
                self._hold(follows, f"{at} opens segment {event.segment} although {closing} was closed before it")

    def made(self, segment: Segment, before: Segment) -> None:
        """The broker made the stream of a segment."""
        at = segment.first - 1
        self._hold(before.sealed and before.last == at, f"segment {segment.number} begins at {segment.first}")
        self._hold(self._closing == before.number, f"{segment.stream} is made while no record closes {before.stream}")

    def removed(self, segment: Segment, records: Sequence[Stored], archive: SimArchive) -> None:
        """The broker dropped a segment: only its file has those records now."""
        self._hold(segment.sealed, f"{segment.stream} takes records and was removed")
        path = next((file.path for file in archive.files() if file.first == segment.first), None)
        self._hold(path is not None, f"{segment.stream} was removed and no file holds its records")
        if path is not None:
            with LogFileReader(path) as file:
                self._hold(list(file.records()) == list(records), f"{segment.stream} was removed, its file has others")

    def check_archive(self, records: Sequence[Stored], archive: SimArchive) -> None:
        """What the files hold is what was stored, segment by segment, and nothing between two is missing."""
        last = 0
        for found in archive.files():
            self._hold(found.first == last + 1, f"the archive goes on with {found.first} after {last}")
            last = found.last
            with LogFileReader(found.path) as file:
                same = list(file.records()) == list(records[found.first - 1 : last])
                self._hold(same, f"the file up to {last} has other records")
                self._hold(file.end.last_hash == self.hashes[last - 1], f"the file up to {last} has another chain")
            self._hold(records[last - 1].subject == CLOSE_SUBJECT, f"the file up to {last} ends within a segment")

    # -- checkpoints ---------------------------------------------------------------

    def signed(self, data: bytes) -> None:
        """The broker stored a checkpoint."""
        message = SignedCheckpoint.FromString(data)
        note = read_note(message.note)
        claim, size = note.checkpoint, note.checkpoint.size
        last = self.signed_sizes[-1] if self.signed_sizes else 0
        self._hold(size <= len(self.hashes), f"checkpoint {size} is signed and the log ends at {len(self.hashes)}")
        self._hold(size > last, f"checkpoint {size} is signed after {last}")
        self._hold(message.previous_size == last, f"checkpoint {size} goes on from {message.previous_size}, not {last}")
        state = self._states[size]
        self._hold(claim.chain_id == self.hashes[0], f"checkpoint {size} is of another log")
        self._hold(claim.head == self.hashes[size - 1], f"checkpoint {size} names another last record")
        self._hold(claim.root == self._root(0, size), f"checkpoint {size} has a root that is not the log's")
        self._hold(claim.term == state.term, f"checkpoint {size} is of term {claim.term}, its last record is not")
        active = PublicKey(state.signing_keys[-1].public_key) if state.signing_keys else None
        good = active is not None and note.is_by(active) and active.verifies(note.signature, note.text.encode())
        self._hold(good, f"checkpoint {size} is not signed by the key that the log names")
        self.signed_sizes.append(size)
        self._roots[size] = claim.root

    # -- witnesses -----------------------------------------------------------------

    def boots(self, node_id: str, proven: Proven | None) -> None:
        """A node starts, with what it had kept: what it believed a moment before it died it may not have."""
        self._believed[node_id] = proven.checkpoint.size if proven else 0

    def believed(self, node_id: str, proven: Proven) -> None:
        """A node believes a checkpoint."""
        size, last = proven.checkpoint.size, self._believed.get(node_id, 0)
        self._hold(size >= last, f"{node_id} believes {size} records after it saw {last}")
        same = self._roots.get(size) == proven.checkpoint.root == proven.tree.root()
        self._hold(same, f"{node_id} believes a checkpoint of {size} records that nobody signed")
        self._believed[node_id] = size

    def believed_impostor(self, node_id: str) -> None:
        """A node believes one whose log does not extend what it saw."""
        self._hold(False, f"{node_id} believes a coordinator whose log does not extend the one that it saw")

    def caught_up(self, node_ids: Sequence[str]) -> bool:
        """Whether the whole log is signed, and every node has seen that."""
        size = len(self.hashes)
        signed = bool(self.signed_sizes) and self.signed_sizes[-1] == size
        return signed and all(self._believed.get(node_id) == size for node_id in node_ids)

    def _root(self, begin: int, end: int) -> bytes:
        """The Merkle tree hash of RFC 6962, section 2.1, as it is written there; perfect trees are kept."""
        if end - begin == 1:
            return hashlib.sha256(b"\0" + self.hashes[begin]).digest()
        if (begin, end) not in self._subtrees:
            middle = begin + (1 << (end - begin - 1).bit_length() - 1)
            root = hashlib.sha256(b"\1" + self._root(begin, middle) + self._root(middle, end)).digest()
            if end - begin != 2 * (middle - begin):
                return root
            self._subtrees[begin, end] = root
        return self._subtrees[begin, end]
