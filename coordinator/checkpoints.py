"""Signs the log: at most one checkpoint a second over what was committed, kept on a stream and sent with each pulse.

Nothing waits for a checkpoint but the first of a term. The signing key is that which the log names; a coordinator
whose key file does not hold it does not lead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from coordinator.core.commands import ChangeSigningKey
from coordinator.core.model import Rejected, SigningKey, State
from coordinator.followers import Committed
from coordinator.writer import Writer
from hivefold import limits
from hivefold.bus.port import CheckpointStream, Kept
from hivefold.entropy import Entropy
from hivefold.errors import LogCorruptError, ProofError, UnavailableError
from hivefold.ids import RequestId
from hivefold.log.chain import record_hash
from hivefold.log.port import ReadableLog
from hivefold.proof.checkpoint import Checkpoint, read_note, sign_checkpoint
from hivefold.proof.extension import compact_range
from hivefold.proof.key_file import KeyFile
from hivefold.proof.keys import PublicKey, Signer
from hivefold.proof.merkle import EMPTY, CompactRange, RangeBuilder
from hivefold.v1 import checkpoint_pb2 as pb

_log = structlog.get_logger(__name__)
_HASH_DELAY_S: Final = 0.001
_RESTORE: Final = (
    "find out why before anything else. Restore the log from its mirror; "
    "to go on with this one, delete stream HF_CHECKPOINTS and tell every node to trust anew"
)


@dataclass(frozen=True, slots=True)
class Signing:
    """What a coordinator needs to sign: where checkpoints are kept, and the file with the fleet's key."""

    stream: CheckpointStream
    keys: KeyFile
    entropy: Entropy


@dataclass(frozen=True, slots=True)
class _Signed:
    """A checkpoint, and the range over the log that it is about."""

    tree: CompactRange
    message: pb.SignedCheckpoint
    index: int = 0


_NONE: Final = _Signed(EMPTY, pb.SignedCheckpoint())


@dataclass(frozen=True, slots=True)
class SignedPast:
    """What was signed of the log so far, the range over the records since, and the log's id (empty before record 1)."""

    last: _Signed
    since: CompactRange
    chain_id: bytes


class Checkpointer:
    """The checkpoints of one term. `run` MUST be running for them to be signed."""

    def __init__(self, signing: Signing, writer: Writer, past: SignedPast) -> None:
        self._signing = signing
        self._writer = writer
        self._last = past.last
        self._since = RangeBuilder(past.since)
        self._unhashed: list[bytes] = []
        """Hashes of the last commits, which are not in the tree yet."""
        self._chain_id = past.chain_id
        self._pending: _Signed | None = None
        """Signed, and perhaps stored: tried again as it is until that is known."""
        self._signer: Signer | None = None
        self._wake = asyncio.Event()
        self._sealing = asyncio.Lock()
        self._rotating = asyncio.Lock()
        writer.on_commit(self._add)
        writer.leave_tree_to(self._tree)

    @property
    def latest(self) -> pb.SignedCheckpoint:
        """The last checkpoint that is stored."""
        return self._last.message

    def _tree(self) -> CompactRange:
        """The range over all records that were committed."""
        self._hash()
        return (self._pending or self._last).tree.joined(self._since.range())

    async def begin(self) -> None:
        """Names the first key of a log that has none, and signs the start of the term.

        Raises ConfigError when the key file does not hold the log's key, FencedError, BrokerUnavailableError.
        """
        if not self._writer.state.signing_keys:
            public = self._signing.keys.first(self._signing.entropy).public
            await self._writer.record(ChangeSigningKey(public.key_id, public.raw, "", b"", RequestId("")))
            _log.info("the log is signed from now on", key=public.key_id)
        await self.seal()

    async def run(self) -> None:
        """Signs while records come. Raises FencedError when another coordinator signs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.seal()
            except UnavailableError as error:
                _log.warning("checkpoint not stored", error=error.message)
                self._wake.set()
            await asyncio.sleep(limits.CHECKPOINT_INTERVAL_S)

    async def seal(self) -> None:
        """Signs what was committed and is not signed yet. Raises FencedError, BrokerUnavailableError."""
        async with self._sealing:
            if self._pending is not None:
                await self._store(self._pending)
            self._hash()
            if self._since.end > self._last.tree.end:
                await self._store(self._sign())

    async def _store(self, signed: _Signed) -> None:
        index = await self._signing.stream.store(signed.message.SerializeToString(), after=self._last.index)
        self._last, self._pending = replace(signed, index=index), None

    def _sign(self) -> _Signed:
        """Signs the log as it is now; what is committed from now on is for the next checkpoint."""
        state, since = self._writer.state, self._since.range()
        tree = self._last.tree.joined(since)
        claim = Checkpoint(self._chain_id, tree.end, tree.root(), state.term, self._writer.head_hash)
        message = pb.SignedCheckpoint(
            note=sign_checkpoint(claim, self._active()),
            range=since.hashes,
            previous_size=since.begin,
            keys=[key_message(key) for key in state.signing_keys],
            frontier=tree.hashes,
        )
        self._since = RangeBuilder(CompactRange(tree.end, tree.end))
        self._pending = _Signed(tree, message)
        return self._pending

    async def rotate(self, request_id: RequestId) -> SigningKey:
        """Has another key sign from now on; the same request gives the same key.

        Raises HivefoldError.
        """
        async with self._rotating:
            state = self._writer.state
            if state.signing_keys[-1].request_id != request_id:
                signer = self._active()
                public = self._signing.keys.stage(self._signing.entropy).public
                endorsement = signer.endorse(self._chain_id, public)
                body = ChangeSigningKey(public.key_id, public.raw, signer.public.key_id, endorsement, request_id)
                answer = await self._writer.execute(body)
                if isinstance(answer, Rejected):
                    raise ProofError(answer.message, metadata=dict(answer.metadata))
                _log.info("signing key changed", key=public.key_id, previous=signer.public.key_id)
            return self._writer.state.signing_keys[-1]

    def _add(self, commits: Sequence[Committed]) -> None:
        if commits[0].sequence == 1:
            self._chain_id = commits[0].hash
        if not self._unhashed:  # not now, when somebody waits for an answer, but while the writer waits for the log
            asyncio.get_running_loop().call_later(_HASH_DELAY_S, self._hash)
        self._unhashed += [committed.hash for committed in commits]
        self._wake.set()

    def _hash(self) -> None:
        """Takes the last commits into the tree."""
        if self._unhashed:
            self._since.extend(self._unhashed)
            self._unhashed = []

    def _active(self) -> Signer:
        """The key that the log names, out of the file. Raises ConfigError."""
        key_id = self._writer.state.signing_keys[-1].key_id
        if self._signer is None or self._signer.public.key_id != key_id:
            self._signer = self._signing.keys.active(key_id)
        return self._signer


async def signed_past(signing: Signing, log: ReadableLog, state: State) -> SignedPast:
    """Compares the log, replayed to `state`, with the last checkpoint, before a term is started on it.

    Raises ConfigError when the key file does not hold the log's key, LogCorruptError when the log is not the one
    that was signed, ProofError when nobody could have signed it, BrokerUnavailableError.
    """
    if state.signing_keys:
        signing.keys.active(state.signing_keys[-1].key_id)
    kept = await signing.stream.last()
    if kept is None:
        since = await _range(log, 0, state.sequence)
        return SignedPast(_NONE, since, await _hash_of(log, 1) if state.sequence else b"")
    signed, claim = _checked(kept, state)
    if claim.size > state.sequence:
        raise LogCorruptError(
            f"the log was cut: it ends at record {state.sequence}, and checkpoint {claim.size} was signed; {_RESTORE}",
            position=state.sequence + 1,
        )
    if await _hash_of(log, claim.size) != claim.head:
        raise LogCorruptError(
            f"the log is not the one that was signed: a record up to {claim.size} is another; {_RESTORE}",
            position=claim.size,
        )
    return SignedPast(signed, await _range(log, claim.size, state.sequence), claim.chain_id)


def _checked(kept: Kept, state: State) -> tuple[_Signed, Checkpoint]:
    """The last checkpoint, once it is plain that one of the log's keys signed it. Raises ProofError."""
    message = pb.SignedCheckpoint()
    try:
        message.ParseFromString(kept.data)
    except DecodeError:
        raise ProofError(f"the last of the stored checkpoints does not parse; {_RESTORE}") from None
    note = read_note(message.note)
    tree = compact_range(0, note.checkpoint.size, message.frontier)
    signers = [PublicKey(key.public_key) for key in state.signing_keys]
    known = next((key for key in signers if note.is_by(key)), None)
    if known is None:
        raise ProofError(f"checkpoint {note.checkpoint.size} is not signed by a key that the log names; {_RESTORE}")
    claim = note.verified(known)
    if tree.root() != claim.root:
        raise ProofError(f"the frontier of checkpoint {claim.size} does not have its root; {_RESTORE}")
    return _Signed(tree, message, kept.index), claim


async def _range(log: ReadableLog, begin: int, end: int) -> CompactRange:
    """The range over some records. Linear: from 0 only where a log was never signed, or its checkpoints are gone."""
    builder = RangeBuilder(CompactRange(begin, begin))
    if begin < end:
        async for page in log.read(after=begin, up_to=end):
            builder.extend(record_hash(stored.sequence, stored.subject, stored.data) for stored in page)
    return builder.range()


async def _hash_of(log: ReadableLog, sequence: int) -> bytes:
    async for page in log.read(after=sequence - 1, up_to=sequence):
        return record_hash(page[0].sequence, page[0].subject, page[0].data)
    raise LogCorruptError(f"record {sequence} is missing from the log", position=sequence)


def key_message(key: SigningKey) -> pb.SigningKey:
    """A key as messages carry it."""
    return pb.SigningKey(
        key_id=key.key_id,
        public_key=key.public_key,
        previous_key_id=key.previous_key_id,
        endorsement=key.endorsement,
    )
