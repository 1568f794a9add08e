"""The coordinator's checkpoints: each proves the log it stands for, and a log that is another is not led."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hivefold.errors import BrokerUnavailableError, ConfigError, FencedError, LogCorruptError, ProofError
from hivefold.ids import RequestId
from hivefold.log.chain import record_hash
from hivefold.proof.checkpoint import read_note
from hivefold.proof.extension import Proven, first_seen
from hivefold.proof.merkle import tree_root
from tests.fixtures.signing import SigningPlace


@pytest.fixture
def place(tmp_path: Path) -> SigningPlace:
    return SigningPlace(tmp_path)


def _followed(place: SigningPlace) -> Proven:
    """What somebody knows who saw every checkpoint."""
    first, *others = place.checkpoints()
    proven = first_seen(first)
    for signed in others:
        proven = proven.extended(signed)
    return proven


def _leaves(place: SigningPlace) -> list[bytes]:
    return [record_hash(stored.sequence, stored.subject, stored.data) for stored in place.log.store]


async def test_the_first_term_names_its_key_and_signs_its_start(place: SigningPlace) -> None:
    """Records 1 and 2: the term, the key; the checkpoint is over both."""
    async with place.term() as term:
        (key,) = term.writer.state.signing_keys
        claim = read_note(term.checkpoints.latest.note).checkpoint
    assert [stored.subject for stored in place.log.store] == ["log.term", "log.key"]
    assert key.key_id == place.keys.active(key.key_id).public.key_id
    leaves = _leaves(place)
    assert (claim.size, claim.term, claim.chain_id, claim.head) == (2, 1, leaves[0], leaves[1])
    assert claim.root == tree_root(leaves)


async def test_checkpoints_go_on_over_terms(place: SigningPlace) -> None:
    """What was committed and not signed when a coordinator died is in the first checkpoint of the next."""
    for _ in range(3):
        async with place.term() as term:
            await term.record(5)
            await term.checkpoints.seal()
            await term.record(3)
    assert _followed(place).checkpoint.root == tree_root(_leaves(place)[: _followed(place).checkpoint.size])
    assert [signed.previous_size for signed in place.checkpoints()][1:] == [
        read_note(signed.note).checkpoint.size for signed in place.checkpoints()[:-1]
    ]


async def test_a_log_that_was_never_signed_is_signed_from_its_beginning(place: SigningPlace) -> None:
    """As after an upgrade, or when the stream of checkpoints was deleted."""
    async with place.term() as term:
        await term.record(4)
    place.broker.checkpoints.clear()
    async with place.term():
        pass
    (signed,) = place.checkpoints()
    assert signed.previous_size == 0
    assert first_seen(signed).checkpoint.root == tree_root(_leaves(place))


async def test_nothing_new_is_not_signed_again(place: SigningPlace) -> None:
    """An idle fleet stores nothing."""
    async with place.term() as term:
        await term.checkpoints.seal()
        await term.checkpoints.seal()
    assert len(place.checkpoints()) == 1


async def test_a_checkpoint_whose_answer_was_lost_is_not_a_fence(place: SigningPlace) -> None:
    """It is tried again as it was, found stored, and what came meanwhile goes into the next."""
    async with place.term() as term:
        await term.record()
        term.connection.disconnect()
        with pytest.raises(BrokerUnavailableError):
            await term.checkpoints.seal()
        await term.record()
        term.connection.reconnect()
        await term.checkpoints.seal()
    assert [read_note(signed.note).checkpoint.size for signed in place.checkpoints()] == [2, 3, 4]
    assert _followed(place).checkpoint.size == 4


async def test_who_signs_beside_another_stops_leading(place: SigningPlace) -> None:
    """Two coordinators cannot both go on from one checkpoint."""
    async with place.term() as old:
        await old.record()
        async with place.term():
            with pytest.raises(FencedError):
                await old.checkpoints.seal()


async def test_a_rotated_key_is_followed_and_used_after_a_restart(place: SigningPlace) -> None:
    """The change is a record, endorsed; the same request makes no second key."""
    async with place.term() as term:
        key = await term.checkpoints.rotate(RequestId("r1"))
        assert await term.checkpoints.rotate(RequestId("r1")) == key
        await term.checkpoints.seal()
    assert _followed(place).key.key_id == key.key_id
    async with place.term():
        pass
    assert _followed(place).key.key_id == key.key_id


async def test_two_rotations_at_once_follow_each_other(place: SigningPlace) -> None:
    """Each gets its own key."""
    async with place.term() as term:
        keys = await asyncio.gather(*(term.checkpoints.rotate(RequestId(f"r{n}")) for n in range(2)))
        await term.checkpoints.seal()
    assert keys[1].previous_key_id == keys[0].key_id
    assert _followed(place).key.key_id == keys[1].key_id


async def test_without_the_logs_key_nobody_leads(place: SigningPlace) -> None:
    """The error names the file to copy; nothing is recorded."""
    async with place.term():
        records = len(place.log.store)
    place.keys.path.unlink()
    with pytest.raises(ConfigError, match="copy key_file"):
        async with place.term():
            pass
    assert len(place.log.store) == records


async def test_a_log_that_was_cut_is_not_led(place: SigningPlace) -> None:
    """An older copy under newer checkpoints is found before anything is appended to it."""
    async with place.term() as term:
        await term.record(5)
        await term.checkpoints.seal()
    old = place.log.store[:4]
    place = SigningPlace(place.directory, type(place.log)(list(old)), place.broker)
    with pytest.raises(LogCorruptError, match="was cut: it ends at record 4") as caught:
        async with place.term():
            pass
    assert caught.value.position == 5


async def test_a_log_with_another_past_is_not_led(place: SigningPlace) -> None:
    """A consistent chain that is not the one that was signed."""
    async with place.term() as term:
        await term.record(2)
        await term.checkpoints.seal()
    other = SigningPlace(place.directory, seed=1000)
    async with other.term() as term:
        await term.record(9)
    forged = SigningPlace(place.directory, other.log, place.broker)
    with pytest.raises(LogCorruptError, match="not the one that was signed"):
        async with forged.term():
            pass


async def test_a_checkpoint_of_a_stranger_is_not_gone_on_from(place: SigningPlace) -> None:
    """Only the log's keys count."""
    async with place.term():
        pass
    stranger = SigningPlace(place.directory / "other", seed=1000)
    async with stranger.term() as term:
        await term.record(9)
    place.broker.checkpoints[:] = stranger.broker.checkpoints
    with pytest.raises(ProofError, match="not signed by a key that the log names"):
        async with place.term():
            pass
