"""The laws of the model registry, over the same random histories as the core's."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from coordinator.core import commands as cmd
from coordinator.core import model_events as mev
from coordinator.core.decide import Decision, decide
from coordinator.core.decide_replicas import retries_due, short_of
from coordinator.core.events import Event, ModelRegistered
from coordinator.core.model import Failure, Needs, NodeState
from coordinator.core.plan import owed_discards, plan
from coordinator.core.registered import Residency
from coordinator.core.resolve import resolve
from hivefold.errors import Reason
from hivefold.ids import BootId, Digest, ModelName, ModelRef, NodeId, RequestId
from tests import samples
from tests.property.test_core_laws import Fleet, nodes

DIGESTS = [Digest(digit * 64) for digit in "abc"]
versions = st.integers(0, 4)
names = st.sampled_from([ModelName("digits"), ModelName("other")])
needs = st.sampled_from(
    [None, Needs(), Needs((("zone", "a"),)), Needs(gpu_count=1), Needs(memory_bytes=4 * samples.GIB)]
)


class Registry(Fleet):
    """A fleet whose people name, keep and remove models; the alias book is kept apart, as they would on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.book: dict[str, str] = {}
        self.given: dict[str, Digest] = {}
        self.asked: list[cmd.MoveAlias | cmd.SetResidency | cmd.RemoveModel] = []
        self.requests = 0

    def fresh(self) -> RequestId:
        self.requests += 1
        return RequestId(f"r{self.requests}")

    def follow(self, event: Event) -> None:
        super().follow(event)
        match event:
            case ModelRegistered(model):
                assert model.ref not in self.given, "a number is given once"
                self.given[model.ref] = model.digest
            case mev.AliasMoved():
                ref = f"{event.name}@{event.alias}"
                was = f"{event.name}@{event.previous_version}" if event.previous_version else None
                assert self.book.get(ref) == was, "it says where it was"
                self.book[ref] = f"{event.name}@{event.version}"
            case mev.AliasRemoved():
                del self.book[f"{event.name}@{event.alias}"]
            case _:
                pass

    def ask(self, body: cmd.MoveAlias | cmd.SetResidency | cmd.RemoveModel) -> None:
        decided = self.do(body)
        if isinstance(decided, Decision) and decided.events:
            self.asked.append(body)

    @rule(name=names, digest=st.sampled_from(DIGESTS))
    def somebody_registers(self, name: ModelName, digest: Digest) -> None:
        self.do(cmd.RegisterModel(samples.model(name, digest=digest)))

    @rule(name=names, alias=st.sampled_from(["prod", "canary"]), version=versions, expected=st.none() | versions)
    def somebody_moves_an_alias(self, name: ModelName, alias: str, version: int, expected: int | None) -> None:
        """With an expectation it moves only from there."""
        before = self.book.get(f"{name}@{alias}", f"{name}@0")
        body = cmd.MoveAlias(name, alias, version, expected, "", self.fresh())
        self.ask(body)

        if expected is not None and before != f"{name}@{expected}":
            assert self.book.get(f"{name}@{alias}", f"{name}@0") == before

    @rule(
        text=st.sampled_from(["digits", "digits@1", "digits@prod", "other@2"]),
        count=st.none() | st.integers(0, 5),
        pinned=st.none() | st.booleans(),
        wanted=needs,
    )
    def somebody_keeps_a_model(self, text: str, count: int | None, pinned: bool | None, wanted: Needs | None) -> None:
        self.ask(cmd.SetResidency(text, count, pinned, wanted, self.fresh()))

    @rule(name=names, version=st.integers(1, 4), force=st.booleans())
    def somebody_removes_a_model(self, name: ModelName, version: int, force: bool) -> None:
        """What something refers to is not removed, unless by force."""
        ref = ModelRef(f"{name}@{version}")
        used = ref in self.book.values() or ref in self.state.residencies or self.read(ref)
        decided = cmd.RemoveModel(ref, force, "", self.fresh())
        self.ask(decided)

        if used and not force and not (ref in self.state.residencies and not self.state.residencies[ref].replica_count):
            assert ref in self.state.models

    def read(self, ref: ModelRef) -> bool:
        models = (self.state.jobs[job_id].model for job_id in self.state.open_jobs)
        return any(model is not None and model.ref == ref for model in models)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_request_is_repeated(self, data: st.DataObject) -> None:
        """A repeat records nothing, whatever has become of what it asked for."""
        body = data.draw(st.sampled_from(self.asked))

        assert self.do(body) == Decision((), self.state)

    @rule(name=nodes, digests=st.lists(st.sampled_from([samples.DIGEST, *DIGESTS]), unique=True))
    def node_says_what_it_has(self, name: NodeId, digests: list[Digest]) -> None:
        boot = BootId(f"b{self.boots[name]}")
        self.do(cmd.ObserveNode(name, boot, tuple(sorted(digests)), 8 * samples.GIB, 0))

    @precondition(lambda self: any(residency.nodes for residency in self.state.residencies.values()))
    @rule(data=st.data())
    def node_cannot_load(self, data: st.DataObject) -> None:
        """A node that could not load a model is not chosen again at once."""
        placed = [(r.model, n) for r in self.state.residencies.values() for n in r.nodes]
        ref, node_id = data.draw(st.sampled_from(sorted(placed)))
        boot = self.state.nodes[node_id].spec.boot_id
        failure = Failure(Reason.OUT_OF_MEMORY, "no memory for it")
        self.do(cmd.ReportReplica(node_id, boot, self.state.models[ref].digest, failure))

        residency = self.state.residencies.get(ref)
        assert residency is None or node_id not in residency.nodes

    @rule()
    def bytes_go(self) -> None:
        """Bytes go only when no registered version and no open job has them."""
        for root in owed_discards(self.state):
            assert all(model.artifact.root != root for model in self.state.models.values())
            self.do(cmd.ConfirmArtifactRemoved(root))

    @invariant()
    def names_stand_for_what_they_were_set_to(self) -> None:
        for ref, target in self.book.items():
            model = resolve(self.state, ref)
            assert model is not None
            assert model.ref == target

    @invariant()
    def nothing_is_left_to_place(self) -> None:
        """Every decision settles the replicas: only news can change what is placed, or time when it says so."""
        decided = decide(self.state, cmd.Command(self.now_us, cmd.PlaceReplicas()))

        assert isinstance(decided, Decision)
        assert bool(decided.events) is retries_due(self.state, self.now_us)

    @invariant()
    def orders_are_what_is_placed(self) -> None:
        """A restart would tell each node exactly what it is to keep, under the number it was told before."""
        owed = {(order.node_id, keep.model) for order in plan(self.state, self.now_us).keeps for keep in order.keeps}

        assert owed == {(n, r.model) for r in self.state.residencies.values() for n in r.nodes}

    @invariant()
    def no_more_are_placed_than_asked(self) -> None:
        """Beyond what was asked there are only nodes that are on their way out."""
        for residency in self.state.residencies.values():
            assert len(residency.nodes) - len(self.leaving(residency)) <= residency.replica_count

    def leaving(self, residency: Residency) -> list[NodeId]:
        states = ((node_id, self.state.nodes[node_id]) for node_id in residency.nodes)
        return [
            node_id
            for node_id, node in states
            if node.draining
            or node.state is NodeState.LEAVING
            or not set(residency.needs.node_labels) <= set(node.spec.labels)
            or len(node.spec.gpus) < residency.needs.gpu_count
            or node.spec.memory_bytes < residency.needs.memory_bytes
        ]

    def teardown(self) -> None:
        self.enough_nodes_settle_everything()
        super().teardown()

    def enough_nodes_settle_everything(self) -> None:
        """Once there are nodes enough that have all it takes, nothing is missing."""
        for number in range(6):
            spec = samples.node_spec(
                f"big-{number}", slots=4, labels=(("zone", "a"),), gpus=2, memory_bytes=64 * samples.GIB
            )
            self.do(cmd.JoinNode(spec))

        wanting = {
            ref: short_of(self.state, residency)
            for ref, residency in self.state.residencies.items()
            if residency.replica_count <= 6 and residency.needs in {Needs(), *KNOWN_NEEDS}
        }
        assert not any(wanting.values())


KNOWN_NEEDS = (Needs((("zone", "a"),)), Needs(gpu_count=1), Needs(memory_bytes=4 * samples.GIB))

Registry.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_model_laws = Registry.TestCase
