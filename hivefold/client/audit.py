"""What the log commits to without holding it, for auditors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from hivefold.client.connection import Connection
from hivefold.oip.limits import AUDIT_READ_BATCHES
from hivefold.v1 import audit_service_pb2
from hivefold.v1.audit_service_pb2_grpc import AuditServiceStub


class Audit:
    """Batches of inference as nodes stored them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def inference_batches(self, positions: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """Position and bytes of those that are still kept, in the order of `positions`."""
        for start in range(0, len(positions), AUDIT_READ_BATCHES):
            request = audit_service_pb2.ReadInferenceBatchesRequest(
                positions=positions[start : start + AUDIT_READ_BATCHES]
            )
            async for answer in self._connection.stream(AuditServiceStub, "ReadInferenceBatches", request):
                yield answer.position, answer.data
