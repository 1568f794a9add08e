"""Inference on request: arrays to a node, arrays back. For one answer now; a job is for a data set."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hivefold import limits
from hivefold.client.models import Models
from hivefold.client.nodes import Nodes
from hivefold.clock import SystemClock
from hivefold.entropy import jitter
from hivefold.errors import HivefoldError, InvalidRequestError, Reason, UnavailableError
from hivefold.oip.limits import DEFAULT_PRIORITY, FORWARD_CHANNELS, RETRY_MS
from hivefold.v1 import fleet_pb2, model_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hivefold.oip.tensors import WireTensor
    from hivefold.rpc.passing import Passing

Inputs: TypeAlias = "NDArray[Any] | Mapping[str, NDArray[Any]]"
"""An array for a model's only input, or an array for each input by its name."""
_FRESH_MS: Final = 3000
"""How long what the coordinator said of nodes and models is gone by: three heartbeats."""
_ELSEWHERE: Final = frozenset({Reason.SERVER_UNAVAILABLE, Reason.NODE_LOST, Reason.RETURNED})
"""After these another node is asked at once: inference changes nothing, so that asking again is no harm."""


@dataclass(slots=True)
class _Known:
    """What was heard of the fleet."""

    asked_ms: int = -_FRESH_MS - 1
    nodes: tuple[fleet_pb2.Node, ...] = ()
    models: dict[str, model_pb2.Model] = field(default_factory=dict)


class Inference:
    """Asks the nodes, those that have the model first, the one with the fewest calls of this client of two drawn."""

    def __init__(self, models: Models, nodes: Nodes) -> None:
        self._models = models
        self._nodes = nodes
        self._clock = SystemClock()
        self._known = _Known()
        self._passing: Passing | None = None
        self._in_hand: dict[str, int] = {}

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        priority: int = DEFAULT_PRIORITY,
        timeout_s: float = limits.GRPC_DEADLINE_S,
    ) -> dict[str, NDArray[Any]]:
        """As Fleet.infer."""
        from hivefold.oip.requests import InferRequest, write_request
        from hivefold.oip.responses import read_response
        from hivefold.oip.schema import ModelInferResponse
        from hivefold.oip.tensors import to_array

        known = await self._heard(model)
        found = known.models[model]
        tensors = _tensors(found, inputs)
        request = InferRequest(found.name, str(found.version), "", tensors, tuple(outputs), priority)
        data = write_request(request).SerializeToString()
        answer = await self._asked(found, data, timeout_s)
        return {tensor.name: to_array(tensor) for tensor in read_response(ModelInferResponse.FromString(answer))}

    async def close(self) -> None:
        """Closes the connections to nodes."""
        if self._passing is not None:
            await self._passing.close()
            self._passing = None

    async def _heard(self, model: str) -> _Known:
        """The fleet and the model as they are, or were a moment ago."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._known.asked_ms > _FRESH_MS:
            nodes = tuple([node async for node in self._nodes.list()])
            self._known = _Known(now_ms, nodes)
        known = self._known
        if model not in known.models:
            known.models[model] = await self._models.get(model)
        return known

    async def _asked(self, model: model_pb2.Model, data: bytes, timeout_s: float) -> bytes:
        deadline_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        failed: dict[str, HivefoldError] = {}
        while True:
            address = self._choose(model.digest, failed)
            try:
                return await self._call(address, data, (deadline_ms - self._clock.monotonic_ms()) / 1000)
            except HivefoldError as error:
                if error.reason in _ELSEWHERE:
                    failed[address] = error
                elif error.reason is Reason.SERVER_BUSY:
                    pause_s = int(error.metadata.get("retry_ms", RETRY_MS)) * (0.5 + jitter()) / 1000
                    if self._clock.monotonic_ms() + pause_s * 1000 >= deadline_ms:
                        raise
                    await asyncio.sleep(pause_s)
                else:
                    raise

    def _choose(self, digest: str, failed: Mapping[str, HivefoldError]) -> str:
        able = [
            node
            for node in self._known.nodes
            if node.state == fleet_pb2.NODE_STATE_ONLINE and node.spec.grpc_address not in failed
        ]
        if not able:
            self._known.asked_ms = -_FRESH_MS - 1
            if failed:
                raise [*failed.values()][-1]
            raise UnavailableError(
                "no node of the fleet takes requests; look at them with: hivefold node ls",
                reason=Reason.SERVER_UNAVAILABLE,
            )
        holding = [node.spec.grpc_address for node in able if digest in node.loaded_models]
        addresses = holding or [node.spec.grpc_address for node in able]
        drawn = [addresses[int(jitter() * len(addresses))] for _ in range(2)]
        return min(drawn, key=lambda address: self._in_hand.get(address, 0))

    async def _call(self, address: str, data: bytes, left_s: float) -> bytes:
        from hivefold.oip.schema import SERVICE
        from hivefold.rpc.passing import Passing

        if left_s <= 0:
            raise UnavailableError("no node answered in time; allow more time", reason=Reason.DEADLINE_EXCEEDED)
        if self._passing is None:
            self._passing = Passing(f"/{SERVICE}/ModelInfer", channels=FORWARD_CHANNELS)
        self._in_hand[address] = self._in_hand.get(address, 0) + 1
        try:
            return await self._passing.call(address, data, timeout_s=left_s)
        finally:
            self._in_hand[address] -= 1
            if not self._in_hand[address]:
                del self._in_hand[address]


def _tensors(model: model_pb2.Model, inputs: Inputs) -> tuple[WireTensor, ...]:
    """The inputs as tensors, by the model's names. Raises InvalidRequestError where these are not clear."""
    import numpy as np

    from hivefold.oip.tensors import from_array

    names = {spec.name: spec for spec in model.inputs}
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            takes = ", ".join(names)
            raise InvalidRequestError(f"{model.name} takes {takes}: give a dict with an array for each")
        inputs = {next(iter(names)): inputs}
    half = model_pb2.DATA_TYPE_BF16
    return tuple(
        from_array(name, np.asarray(array), "BF16" if name in names and names[name].data_type == half else "")
        for name, array in inputs.items()
    )
