"""What each kind of fault does to the fleet, and how it ends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hivefold.bus.memory import Fault as Loss
from hivefold.log.memory import Fault
from tests.simulation.coordinators import CoordinatorHost, Group
from tests.simulation.hosts import NodeHost
from tests.simulation.log import LogStore
from tests.simulation.parts import SimBroker
from tests.simulation.scenario import FAULTS
from tests.simulation.witnesses import LIES, SimKeyFile

_LONGEST_JUMPS_S: Final = (3.0, 600.0, 7200.0)


class Faults:
    """Does harm to one fleet, until all is healed."""

    def __init__(
        self,
        store: LogStore,
        broker: SimBroker,
        group: Group,
        nodes: list[NodeHost],
        network: random.Random,
        signing_keys: SimKeyFile,
    ) -> None:
        self.losses = 0.0
        self.counts: Counter[str] = Counter()
        self.store = store
        self.broker = broker
        self.group = group
        self.nodes = nodes
        self._network = network
        self._signing_keys = signing_keys
        self._later: list[asyncio.TimerHandle] = []
        self._kinds: dict[str, Callable[[random.Random], None]] = {
            "coordinator crash": lambda draw: self._coordinator(draw).kill(),
            "coordinator freeze": self._freeze_coordinator,
            "coordinator cut off": self._cut_coordinator,
            "hand over": lambda draw: self._coordinator(draw).hand_over(),
            "lost ack": lambda draw: self._inject(draw, draw.choice([Fault.LOST_ACK, Fault.LOST_REQUEST])),
            "refused append": lambda draw: self._inject(draw, Fault.REFUSED),
            "log full": self._fill,
            "log stalled": self._stall,
            "node crash": lambda draw: draw.choice(nodes).kill(),
            "node freeze": self._freeze_node,
            "node leave": lambda draw: draw.choice(nodes).leave(),
            "node cut off": self._cut,
            "broker restart": self._restart_broker,
            "power cut": self._cut_power,
            "clock jump": self._jump,
            "redelivery": lambda draw: broker.redeliver(draw.choice(nodes).node_id),
            "archive full": self._fill_archive,
            "impostor": self._pretend,
        }
        assert tuple(self._kinds) == FAULTS

    def strike(self, name: str, draw: random.Random) -> None:
        """One fault of a kind."""
        self.counts[name] += 1
        self._kinds[name](draw)

    def lose(self, subject: str) -> Loss:
        """What becomes of a message."""
        if self._network.random() >= self.losses:
            return Loss.PASS
        loss = self._network.choice([Loss.DROP, Loss.REPEAT, Loss.DELAY])
        self.counts[f"message {loss.name.lower()}"] += 1
        if loss is Loss.DELAY:
            self._after(self._network.expovariate(2.0), self.broker.release)
        return loss

    def heal(self) -> None:
        """All faults end."""
        self.losses = 0.0
        for timer in self._later:
            timer.cancel()
        for host in self.group.hosts:
            host.thaw()
        self._empty()
        self._empty_archive()
        self._start_broker()
        self.broker.release()
        for node in self.nodes:
            node.down_s = 1.0
            node.thaw()
            node.heal()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._later.append(asyncio.get_running_loop().call_later(seconds, act))

    def _coordinator(self, draw: random.Random) -> CoordinatorHost:
        """The one that leads, more often than any."""
        leading = [host for host in self.group.hosts if host.current is not None and host.current.leads]
        return draw.choice(leading if leading and draw.random() < 0.75 else self.group.hosts)

    def _inject(self, draw: random.Random, fault: Fault) -> None:
        current = self._coordinator(draw).current
        if current is not None:
            current.log.inject(fault)

    def _freeze_coordinator(self, draw: random.Random) -> None:
        host = self._coordinator(draw)
        host.freeze()
        self._after(draw.uniform(0.5, 20.0), host.thaw)

    def _cut_coordinator(self, draw: random.Random) -> None:
        host = self._coordinator(draw)
        host.cut()
        self._after(draw.uniform(0.5, 15.0), host.heal)

    def _freeze_node(self, draw: random.Random) -> None:
        node = draw.choice(self.nodes)
        node.freeze()
        self._after(draw.uniform(0.5, 30.0), node.thaw)

    def _fill(self, draw: random.Random) -> None:
        self.store.full = True
        self._after(draw.uniform(0.5, 10.0), self._empty)

    def _empty(self) -> None:
        self.store.full = False

    def _fill_archive(self, draw: random.Random) -> None:
        self.store.archive.full = True
        self._after(draw.uniform(0.5, 20.0), self._empty_archive)

    def _empty_archive(self) -> None:
        self.store.archive.full = False

    def _pretend(self, draw: random.Random) -> None:
        """A coordinator with another log, say from an old copy, calls itself the leader for a while."""
        lie = draw.choice(LIES)
        for node in self.nodes:
            pulse = node.deceive(lie, self._signing_keys, draw)
            if pulse is not None:
                for after_s in (0.0, 0.9, 1.8):
                    self._after(after_s, partial(node.hear, pulse))

    def _stall(self, draw: random.Random) -> None:
        current = self._coordinator(draw).current
        if current is not None:
            current.log.hold()
            self._after(draw.uniform(0.1, 8.0), current.log.release)

    def _cut(self, draw: random.Random) -> None:
        node = draw.choice(self.nodes)
        node.cut()
        self._after(draw.uniform(0.5, 25.0), node.heal)

    def _restart_broker(self, draw: random.Random) -> None:
        self.broker.cut_all()
        for host in self.group.hosts:
            host.cut()
        self._after(draw.uniform(0.1, 10.0), self._start_broker)

    def _start_broker(self) -> None:
        for host in self.group.hosts:
            host.heal()
        self.broker.restart()

    def _cut_power(self, draw: random.Random) -> None:
        self.store.cut_power()
        self._restart_broker(draw)

    def _jump(self, draw: random.Random) -> None:
        machines: Sequence[CoordinatorHost | NodeHost] = self.group.hosts if draw.random() < 0.5 else self.nodes
        clock = draw.choice(machines).clock
        clock.ahead_us += int(draw.uniform(-1.0, 1.0) * draw.choice(_LONGEST_JUMPS_S) * 1e6)
