"""Laws of residency, under any order of requests, leases, loads, pins, releases and other processes' memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.residency.policy import HOST, Full, Memory, Phase, Residency, Resident, Rules

MODELS = tuple("abcdefgh")
SIZES = {digest: 10 * (1 + number) for number, digest in enumerate(MODELS)}
TOTAL, BUDGET = 300, 200
RULES = Rules(models=4, idle_ms=5_000, wait_ms=2_000, turn_ms=100, line=6, memory_ms=500)
models = st.sampled_from(MODELS)


class Node(RuleBasedStateMachine):
    """A node whose memory is what its models and other processes really take: at most what was expected of them."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Residency(RULES)
        self.now_ms = 0
        self.foreign = 0
        self.loading: list[Resident] = []
        self.unloading: list[Resident] = []
        self.leases: list[Resident] = []
        self.waiting: dict[str, int] = {}
        """Since when, of those whose wait was not ended."""

    @property
    def free(self) -> int:
        return TOTAL - self.foreign - sum(found.held.get(HOST, 0) for found in self.desk.residents.values())

    def step(self) -> None:
        steps = self.desk.step(self.now_ms, Memory({HOST: self.free}, {HOST: BUDGET}))
        for resident in steps.unload:
            assert resident.users == 0
            assert resident not in self.leases
            assert not resident.pinned
            self.unloading.append(resident)
        for resident in steps.load:
            del self.waiting[resident.digest]
            self.loading.append(resident)
        if steps.load:
            taken = [max(r.expected[HOST], r.held.get(HOST, 0)) for r in self.desk.residents.values()]
            assert sum(taken) <= BUDGET
            assert len(taken) <= RULES.models
            # What was let in fits beside what others may still come to take, as it was measured.
            going = [r for r in self.desk.residents.values() if r.phase is not Phase.UNLOADING]
            assert sum(r.expected[HOST] - r.held.get(HOST, 0) for r in going) <= self.free
        for resident in steps.again:
            del self.waiting[resident.digest]
            self.desk.resume(resident, 1)
            self.leases.append(resident)
        assert all(resident.phase is Phase.READY for resident in self.leases)
        for waiter, why in steps.refuse:
            waited = self.now_ms - self.waiting.pop(waiter.digest)
            assert why is not Full.WAIT or waited >= RULES.wait_ms

    @rule(digest=models, importance=st.integers(1, 3))
    def ask(self, digest: str, importance: int) -> None:
        """Somebody needs a model: a lease, or a place in the line."""
        resident = self.desk.residents.get(digest)
        if resident is not None and (resident.phase is Phase.LOADING or self.desk.lease(resident)):
            if resident.phase is Phase.READY:
                self.leases.append(resident)
        elif self.desk.ask(digest, {HOST: SIZES[digest]}, self.now_ms, importance=importance) is None:
            self.waiting.setdefault(digest, self.now_ms)
        self.step()

    @rule(data=st.data(), ratio=st.floats(0.1, 1))
    def load(self, data: st.DataObject, ratio: float) -> None:
        """A load ends, well or not; it took at most what was expected."""
        if self.loading:
            resident = self.loading.pop(data.draw(st.integers(0, len(self.loading) - 1)))
            if data.draw(st.booleans()):
                self.desk.loaded(resident, {HOST: int(resident.expected[HOST] * ratio)}, 1, self.now_ms)
                self.leases.append(resident)
            else:
                self.desk.gone(resident)
        self.step()

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A lease ends."""
        if self.leases:
            self.desk.end(self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))), self.now_ms)
        self.step()

    @rule()
    def unload(self) -> None:
        """A model's memory comes free."""
        if self.unloading:
            resident = self.unloading.pop(0)
            self.desk.gone(resident)
        self.step()

    @rule(digest=models, pinned=st.booleans())
    def pin(self, digest: str, pinned: bool) -> None:
        self.desk.pin(digest, pinned=pinned)
        self.step()

    @rule(digest=models)
    def release(self, digest: str) -> None:
        self.desk.release(digest)
        self.step()

    @rule(digest=models)
    def withdraw(self, digest: str) -> None:
        self.desk.withdraw(digest)
        self.waiting.pop(digest, None)
        self.step()

    @rule(used=st.integers(0, 100))
    def others(self, used: int) -> None:
        """Other processes take memory, or give it back; never what is not there."""
        self.foreign = min(used, self.foreign + max(0, self.free))
        self.step()

    @rule(passed_ms=st.integers(1, 1500))
    def passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.step()

    @invariant()
    def nobody_waits_longer_than_may_be(self) -> None:
        """Who waits has waited less than the bound, and no more wait than may."""
        assert all(self.now_ms - since < RULES.wait_ms for since in self.waiting.values())
        assert set(self.waiting) == set(self.desk.line)
        assert len(self.waiting) <= RULES.line

    @invariant()
    def the_next_look_is_in_time(self) -> None:
        """Whoever waits is looked at again before the wait is over."""
        if self.waiting:
            due_ms = self.desk.due_ms(self.now_ms, 1_000_000)
            assert due_ms <= min(self.waiting.values()) + RULES.wait_ms

    def teardown(self) -> None:
        """Once all leases and loads end and other processes are gone, everybody in the line gets in or is refused."""
        self.foreign = 0
        for digest in MODELS:
            self.desk.pin(digest, pinned=False)
        for _ in range(50):
            for resident in self.loading:
                self.desk.loaded(resident, {HOST: 1}, 0, self.now_ms)
            for resident in self.leases:
                self.desk.end(resident, self.now_ms)
            for resident in self.unloading:
                self.desk.gone(resident)
            self.loading, self.leases, self.unloading = [], [], []
            self.step()
        assert not self.waiting


Node.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestNode = Node.TestCase


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True),
    st.integers(1, 4),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_models_in_use_all_the_time_keep_nobody_out(
    wanted: list[int], places: int, lease_ms: int, load_ms: int
) -> None:
    """Every resident model is leased anew as soon as it may be; still each of the line gets in, in its order.

    At most a turn, a lease and a load after the one before it, where the turn is twice the load at most.
    """
    desk = Residency(Rules(models=places, idle_ms=0, wait_ms=1 << 40, turn_ms=50))
    room = Memory({}, {})
    ends: dict[str, int] = {}
    loads: dict[str, int] = {}
    for number in wanted:
        desk.ask(f"m{number}", {HOST: 1}, 0)
    came: list[str] = []
    now_ms = 0
    bound_ms = len(wanted) * (max(50, 2 * load_ms) + lease_ms + load_ms + 2)
    while len(came) < len(wanted):
        assert now_ms <= bound_ms
        steps = desk.step(now_ms, room)
        for resident in steps.load:
            loads[resident.digest] = now_ms + load_ms
            came.append(resident.digest)
        for resident in steps.unload:
            desk.gone(resident)
        for digest, resident in list(desk.residents.items()):
            if loads.get(digest) == now_ms:
                desk.loaded(resident, {HOST: 1}, 1, now_ms)
                ends[digest] = now_ms + lease_ms
            elif ends.get(digest) == now_ms:
                # The next lease begins before the last one ends: the model is never unused.
                desk.lease(resident)
                desk.end(resident, now_ms)
                ends[digest] = now_ms + lease_ms
        now_ms += 1
    assert came == [f"m{number}" for number in wanted]
