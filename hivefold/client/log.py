"""The log, for readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from hivefold import limits
from hivefold.client.connection import Connection
from hivefold.client.messages import message
from hivefold.client.paging import pages
from hivefold.client.request_ids import new_request_id
from hivefold.v1 import log_service_pb2, record_pb2
from hivefold.v1.checkpoint_pb2 import SignedCheckpoint, SigningKey
from hivefold.v1.log_service_pb2_grpc import LogServiceStub


class Log:
    """Records as stored, and where the log ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(
        self, *, after: int = 0, up_to: int = 0, follow: bool = False
    ) -> AsyncIterator[record_pb2.StoredRecord]:
        """The records after `after`, up to `up_to` (0: the head at the time of the call), then on if `follow`."""
        async for page in self.pages(after=after, up_to=up_to, follow=follow):
            for record in page:
                yield record

    async def pages(
        self, *, after: int = 0, up_to: int = 0, follow: bool = False
    ) -> AsyncIterator[Sequence[record_pb2.StoredRecord]]:
        """As `read`, in the pages that come: for those who read much."""
        request = message(log_service_pb2.ReadLogRequest, after_sequence=after, up_to_sequence=up_to, follow=follow)
        async for response in self._connection.stream(LogServiceStub, "ReadLog", request):
            yield response.records

    async def head(self, *, with_state_digest: bool = False) -> log_service_pb2.GetHeadResponse:
        """The end of the log, with the digest of the state there if asked for."""
        request = log_service_pb2.GetHeadRequest(with_state_digest=with_state_digest)
        timeout_s = limits.DIGEST_DEADLINE_S if with_state_digest else limits.GRPC_DEADLINE_S
        head: log_service_pb2.GetHeadResponse = await self._connection.call(
            LogServiceStub, "GetHead", request, timeout_s
        )
        return head

    async def checkpoints(self, *, after_size: int = 0, up_to_size: int = 0) -> AsyncIterator[SignedCheckpoint]:
        """The signed checkpoints that are kept, oldest first: over more records than `after_size`.

        And over at most `up_to_size` (0: all).
        """
        request = message(log_service_pb2.ReadCheckpointsRequest, after_size=after_size, up_to_size=up_to_size)
        async for response in self._connection.stream(LogServiceStub, "ReadCheckpoints", request):
            yield response.checkpoint

    async def segments(self) -> AsyncIterator[log_service_pb2.Segment]:
        """The segments of the log by number, and where each of them is."""
        request = log_service_pb2.ListSegmentsRequest()
        async for segment in pages(self._connection, LogServiceStub, "ListSegments", request, "segments"):
            yield segment

    async def hand_over(self, *, term: int = 0, request_id: str = "") -> int:
        """Has the leader end its term so that another coordinator leads; gives the term that ended.

        Without `term` it is the one at the time of the call; a repeat with the same term ends no other. Raises
        hivefold.errors.
        """
        term = term or (await self.head()).term
        request = log_service_pb2.HandOverRequest(request_id=request_id or new_request_id(), term=term)
        answer: log_service_pb2.HandOverResponse = await self._connection.call(
            LogServiceStub, "HandOver", request, limits.GRPC_DEADLINE_S
        )
        return answer.term

    async def rotate_key(self, *, request_id: str = "") -> SigningKey:
        """Has the log signed with a new key from now on; the same `request_id` gives the same key."""
        request = log_service_pb2.RotateKeyRequest(request_id=request_id or new_request_id())
        answer: log_service_pb2.RotateKeyResponse = await self._connection.call(
            LogServiceStub, "RotateKey", request, limits.GRPC_DEADLINE_S
        )
        return answer.key
