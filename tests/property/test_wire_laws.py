"""The laws of the wire: what is stored reads back as it was, and altered bytes are noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import commands as cmd
from coordinator.core import events as ev
from coordinator.replay import Replayer
from coordinator.wire.commands import command_from_proto, command_to_proto
from coordinator.wire.events import event_from_proto, event_to_proto
from coordinator.wire.records import GENESIS_HASH, NewRecord, decode_record, record_hash
from hivefold.errors import LogCorruptError
from hivefold.log.port import Stored
from hivefold.v1 import command_pb2, event_pb2
from tests import strategies


@given(strategies.events)
def test_every_event_reads_back_as_it_was(event: ev.Event) -> None:
    """from_proto(parse(serialise(to_proto(event)))) == event, for every event the log can hold."""
    stored = event_to_proto(event).SerializeToString()

    assert event_from_proto(event_pb2.Event.FromString(stored), 1) == event


@given(strategies.commands)
def test_every_command_reads_back_as_it_was(command: cmd.Command) -> None:
    """The recorded cause of a decision is the command that was decided upon."""
    stored = command_to_proto(command).SerializeToString()

    assert command_from_proto(command_pb2.Command.FromString(stored), 1) == command


@given(
    command=strategies.commands,
    events=st.lists(strategies.events, min_size=1, max_size=3).map(tuple),
    term=strategies.u63,
    sequence=st.integers(1, strategies.U63),
    record_id=st.binary(min_size=16, max_size=16),
)
def test_every_record_reads_back_as_it_was(
    command: cmd.Command, events: tuple[ev.Event, ...], term: int, sequence: int, record_id: bytes
) -> None:
    """A record keeps its position, term, time, cause, events and link, and its hash covers its bytes."""
    entry = NewRecord(sequence, term, record_id, command, events, GENESIS_HASH, "trace").entry()
    read = decode_record(Stored(sequence, entry.subject, entry.data))

    assert (read.sequence, read.term, read.time_us) == (sequence, term, command.time_us)
    assert (read.command, read.events, read.previous_hash) == (command, events, GENESIS_HASH)
    assert read.hash == record_hash(sequence, entry.subject, entry.data)


@given(data=st.data())
def test_an_altered_bit_anywhere_is_noticed(data: st.DataObject) -> None:
    """Flipping one bit of a record, its last one apart, stops the replay at that record or the next."""
    log = chain(3)
    index = data.draw(st.integers(0, len(log) - 2))
    bit = data.draw(st.integers(0, 8 * len(log[index].data) - 1))
    altered = bytearray(log[index].data)
    altered[bit // 8] ^= 1 << bit % 8
    log[index] = Stored(index + 1, log[index].subject, bytes(altered))

    with pytest.raises(LogCorruptError) as caught:
        Replayer().feed(log)

    assert caught.value.position in {index + 1, index + 2}


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_record_is_named(missing: int) -> None:
    """A log with a hole is refused with the position of the hole, never read as a shorter one."""
    log = chain(3)
    del log[missing]

    with pytest.raises(LogCorruptError) as caught:
        Replayer().feed(log)

    assert caught.value.position == missing + 1


def chain(length: int) -> list[Stored]:
    """A sound log of terms that follow each other."""
    log, previous = [], GENESIS_HASH
    for sequence in range(1, length + 1):
        command = cmd.Command(1_700_000_000_000_000 + sequence, cmd.StartTerm("c1", "0.1.0"))
        events = (ev.TermStarted(sequence, "c1", "0.1.0"),)
        entry = NewRecord(sequence, sequence, bytes([sequence] * 16), command, events, previous).entry()
        previous = record_hash(sequence, entry.subject, entry.data)
        log.append(Stored(sequence, entry.subject, entry.data))
    return log
