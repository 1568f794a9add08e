"""The queue before a model, under a clock that moves only when told to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.batching import Batch, BatchPolicy, BatchQueue, Waiting

POLICY = BatchPolicy(max_rows=4, max_bytes=1000)


def waiting(name: str, at_us: int = 0, **more: object) -> Waiting[str]:
    values: dict[str, object] = {"shape": "s", "rows": 1, "size_bytes": 10, **more}
    return Waiting(name, arrived_us=at_us, **values)  # type: ignore[arg-type]


def queue(*requests: Waiting[str], policy: BatchPolicy = POLICY) -> BatchQueue[str]:
    found: BatchQueue[str] = BatchQueue(policy)
    assert all(found.offer(request) for request in requests)
    return found


def names(batch: Batch[str]) -> str:
    return "".join(request.what for request in batch.requests)


def over(batch: Batch[str]) -> str:
    return "".join(request.what for request in batch.expired)


def drained(line: BatchQueue[str], now_us: int = 0) -> list[str]:
    found: list[str] = []
    while batch := names(line.take(now_us)):
        found.append(batch)
    return found


def test_what_has_gathered_goes_out_together_up_to_the_largest_batch() -> None:
    """In the order in which it came."""
    assert drained(queue(*[waiting(name) for name in "abcdef"])) == ["abcd", "ef"]


def test_requests_of_another_shape_make_another_batch() -> None:
    """The one that came first decides which shape goes first."""
    line = queue(waiting("a", 0), waiting("x", 1, shape="t"), waiting("b", 2), waiting("y", 3, shape="t"))
    assert drained(line, 9) == ["ab", "xy"]


def test_a_request_larger_than_any_batch_goes_alone() -> None:
    """It is not cut, and takes nobody along."""
    assert drained(queue(waiting("a", rows=9), waiting("b"))) == ["a", "b"]


def test_a_batch_is_bounded_in_bytes_too() -> None:
    """Copying them together has its price."""
    assert drained(queue(*[waiting(name, size_bytes=400) for name in "abc"])) == ["ab", "c"]


def test_a_higher_priority_goes_first() -> None:
    """1 before 2 before 3, whenever they came; priorities do not share a batch."""
    line = queue(waiting("c", 0, priority=3), waiting("b", 1), waiting("a", 2, priority=1))
    assert drained(line, 9) == ["a", "b", "c"]


def test_with_a_delay_a_batch_waits_for_company_and_no_longer() -> None:
    """The first request's wait counts."""
    line = queue(waiting("a", 100), waiting("b", 150), policy=replace(POLICY, max_delay_us=50, patient=True))
    assert names(line.take(149)) == ""
    assert line.due_us() == 150
    assert names(line.take(150)) == "ab"


def test_whoever_is_alone_does_not_wait_for_company() -> None:
    """One caller that sends the next request after each answer; a delay costs it nothing."""
    line = queue(policy=replace(POLICY, max_delay_us=1000))
    for now_us in range(0, 10_000, 100):
        line.offer(waiting("a", now_us))
        assert names(line.take(now_us)) == "a"


def test_as_many_as_there_were_lately_are_waited_for_and_no_longer_than_the_delay() -> None:
    """Three callers at a time; once two of them are gone they are soon not waited for any more."""
    line = queue(policy=replace(POLICY, max_delay_us=1000))
    line.offer(waiting("a"), running=2)  # two are with the model
    for name in "bc":
        assert names(line.take(0)) == ""
        line.offer(waiting(name))
    assert names(line.take(0)) == "abc"
    line.offer(waiting("d", 10_000))
    assert names(line.take(10_999)) == ""
    assert names(line.take(11_000)) == "d"
    waits = 0
    for now_us in range(20_000, 100_000, 2000):
        line.offer(waiting("e", now_us))
        waits += not line.take(now_us).requests
        line.take(now_us + 1000)
    assert 0 < waits < 25


def test_a_full_batch_does_not_wait() -> None:
    """Whatever the delay."""
    line = queue(*[waiting(name, 100) for name in "abcde"], policy=replace(POLICY, max_delay_us=10_000, patient=True))
    assert names(line.take(100)) == "abcd"
    assert names(line.take(100)) == ""


def test_a_preferred_size_goes_out_at_once() -> None:
    """The largest that is filled; what is left waits for its delay."""
    policy = replace(POLICY, max_rows=8, max_delay_us=50, preferred_rows=(2, 4))
    line = queue(*[waiting(name, 0) for name in "abcde"], policy=policy)
    assert [names(line.take(1)), names(line.take(1)), names(line.take(50))] == ["abcd", "", "e"]


def test_what_waits_for_company_keeps_no_other_shape_waiting() -> None:
    """A full batch that came later goes first."""
    policy = replace(POLICY, max_rows=2, max_delay_us=50, patient=True)
    line = queue(waiting("a", 0), waiting("x", 1, shape="t"), waiting("y", 2, shape="t"), policy=policy)
    assert names(line.take(3)) == "xy"


def test_expired_and_abandoned_requests_are_never_run() -> None:
    """Wherever in the line they are: they come out as expired, once."""
    line = queue(waiting("a", deadline_us=5), waiting("b"), waiting("c", deadline_us=5), waiting("d"))
    gone = waiting("e")
    line.offer(gone)
    gone.gone = True
    batch = line.take(5)
    assert (names(batch), over(batch)) == ("bd", "ace")
    assert (line.requests, line.rows, line.size_bytes) == (0, 0, 0)


def test_a_full_queue_refuses() -> None:
    """By count and by bytes; a single request is always taken, for it would never fit otherwise."""
    line = queue(waiting("a"), waiting("b"), policy=replace(POLICY, queue_requests=2))
    assert not line.offer(waiting("c"))
    large = queue(waiting("a", size_bytes=5000), policy=replace(POLICY, queue_bytes=100))
    assert not large.offer(waiting("b"))
    assert names(large.take(0)) == "a"
    assert large.offer(waiting("b"))


REQUESTS = st.lists(
    st.tuples(st.sampled_from("st"), st.integers(1, 6), st.sampled_from((1, 2, 3)), st.sampled_from((0, 30, 10**9))),
    max_size=40,
)


@given(
    drawn=REQUESTS, delay_us=st.integers(0, 100), preferred=st.sampled_from(((), (2,), (2, 4))), patient=st.booleans()
)
def test_every_request_comes_out_once_and_no_batch_mixes_shapes(
    drawn: list[tuple[Hashable, int, int, int]], delay_us: int, preferred: tuple[int, ...], *, patient: bool
) -> None:
    """Nothing is lost, nothing twice, order is kept within shape and priority, bounds hold, and nothing is left."""
    policy = replace(POLICY, max_delay_us=delay_us, preferred_rows=preferred, patient=patient)
    line: BatchQueue[int] = BatchQueue(policy)
    for index, (shape, rows, priority, deadline_us) in enumerate(drawn):
        assert line.offer(Waiting(index, shape, rows, 10, index, deadline_us, priority))
    ran: list[int] = []
    expired: list[int] = []
    for now_us in range(0, 300, 10):
        while True:
            filled = line.filled
            batch = line.take(now_us)
            waited = [request for request in batch.requests if now_us - request.arrived_us >= delay_us]
            assert filled or waited or not batch.requests
            expired += [request.what for request in batch.expired]
            if not batch.requests:
                break
            ran += [request.what for request in batch.requests]
            assert len({(request.shape, request.priority) for request in batch.requests}) == 1
            assert len(batch.requests) == 1 or sum(request.rows for request in batch.requests) <= policy.max_rows
            assert all(not 0 < request.deadline_us <= now_us for request in batch.requests)
    assert sorted(ran + expired) == list(range(len(drawn)))
    assert line.requests == 0
    for shape in "st":
        for priority in (1, 2, 3):
            same = [what for what in ran if drawn[what][0] == shape and drawn[what][2] == priority]
            assert same == sorted(same)


def test_a_batch_that_costs_nothing_to_start_waits_for_no_little_company() -> None:
    """Two that come together go out at once; with much company they wait for it, or their time."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000))
    line.hurried = True
    assert line.offer(waiting("a"), running=3)
    assert names(line.take(0)) == "a"
    assert line.offer(waiting("b"), running=20)
    assert names(line.take(0)) == ""
    assert names(line.take(1000)) == "b"


def test_more_company_than_is_enough_is_not_waited_for() -> None:
    """Of 500 in hand 32 make a batch."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000))
    for number in range(31):
        assert line.offer(waiting(f"{number}"), running=500)
    assert line.take(0).requests == ()
    assert line.offer(waiting("last"), running=500)
    assert len(line.take(0).requests) == 32


def test_a_patient_model_waits_its_time_however_little_a_batch_costs() -> None:
    """Its label says so."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000, patient=True))
    line.hurried = True
    assert line.offer(waiting("a"))
    assert names(line.take(999)) == ""
    assert names(line.take(1000)) == "a"


def test_requests_that_are_being_run_are_not_waited_for() -> None:
    """Four are in hand, three of them in a batch: the fourth has nobody to wait for."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000))
    assert line.offer(waiting("a"), running=3)
    assert names(line.take(0)) == ""
    line.running = 3
    assert names(line.take(0)) == "a"


def test_what_waits_is_shared_among_the_lanes_that_are_free() -> None:
    """Five requests on two lanes: three and two, for a lane that has nothing to do helps nobody."""
    line = queue(*[waiting(name) for name in "abcde"], policy=replace(POLICY, max_rows=8))
    assert [names(line.take(0, 2)), names(line.take(0, 1))] == ["abc", "de"]


def hurried() -> BatchQueue[str]:
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1500))
    line.hurried = True
    return line


def test_many_callers_that_were_answered_one_at_a_time_soon_share_batches() -> None:
    """Each was gone before the next one came: only a look shows how many there are."""
    line = hurried()
    sizes: list[int] = []
    for now_us in range(0, 400_000, 200):
        batch = line.take(now_us)
        if batch.requests:
            sizes.append(len(batch.requests))
        if line.pass_by():
            sizes.append(1)
        else:
            assert line.offer(waiting("a", now_us))
    assert sizes[0] == 1
    assert set(sizes[-20:]) <= {6, 7, 8}


def test_one_caller_is_looked_at_ever_more_seldom() -> None:
    """The next request comes after the answer: hardly any waits, and none is run with another."""
    line = hurried()
    waits = now_us = 0
    for _ in range(10_000):
        now_us += 300
        if line.pass_by():
            continue
        assert line.offer(waiting("a", now_us))
        while not (batch := line.take(now_us)).requests:
            now_us = line.due_us()
        waits += 1
        assert len(batch.requests) == 1
    assert 0 < waits < 20


def test_two_callers_wait_for_a_look_once_in_a_while() -> None:
    """Little company is no reason to wait, and not to look all the time either."""
    line = hurried()
    waits = 0
    for now_us in range(0, 10_000_000, 2000):
        assert line.offer(waiting("a", now_us))
        assert line.offer(waiting("b", now_us))
        batch = line.take(now_us)
        waits += not batch.requests
        assert len((batch if batch.requests else line.take(now_us + 1500)).requests) == 2
    assert 0 < waits < 30


def test_nobody_passes_by_a_patient_model() -> None:
    """Its label says that requests wait."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000, patient=True))
    line.hurried = True
    assert not line.pass_by()


def test_a_heavy_model_waits_for_no_company() -> None:
    """A lane is free: whatever is there goes out, however many there were lately; a patient one waits all the same."""
    line: BatchQueue[str] = BatchQueue(BatchPolicy(max_rows=64, max_bytes=10_000, max_delay_us=1000))
    assert line.offer(waiting("a"), running=20)
    assert names(line.take(0)) == ""
    line.heavy = True
    assert names(line.take(0)) == "a"
    line.policy = replace(line.policy, patient=True)
    assert line.offer(waiting("b"))
    assert names(line.take(0)) == ""
