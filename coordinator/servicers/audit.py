"""AuditService: what the log commits to without holding it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from hivefold.errors import NotFoundError
from hivefold.v1 import audit_service_pb2 as pb
from hivefold.v1.audit_service_pb2_grpc import AuditServiceServicer


class AuditServicer(AuditServiceServicer):
    """hivefold.v1.AuditService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def ReadInferenceBatches(
        self, request: pb.ReadInferenceBatchesRequest, context: Any
    ) -> AsyncIterator[pb.ReadInferenceBatchesResponse]:
        """Streams those batches that are still kept."""
        checking.refuse(checking.batch_positions(request.positions))
        inferences = self._backing.inferences
        if inferences is None:
            return
        for position in request.positions:
            try:
                found = await inferences.get(position)
            except NotFoundError:
                continue
            yield pb.ReadInferenceBatchesResponse(position=position, data=found.data)
