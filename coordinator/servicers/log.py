"""LogService: the log for readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from coordinator.checkpoints import key_message
from coordinator.core.digest import state_digest
from coordinator.followers import Followed, FollowerLaggedError
from coordinator.kept_checkpoints import kept_checkpoints
from coordinator.segment_care import Place
from coordinator.servicers import checking
from coordinator.servicers.backing import Backing
from coordinator.servicers.paging import Pager
from coordinator.watch import check_position
from coordinator.wire.records import record_hash
from coordinator.wire.times import duration, timestamp
from hivefold.errors import ConflictError, NotLeaderError
from hivefold.ids import RequestId
from hivefold.log.port import Stored
from hivefold.v1 import log_service_pb2 as pb
from hivefold.v1 import record_pb2
from hivefold.v1.log_service_pb2_grpc import LogServiceServicer


class LogServicer(LogServiceServicer):
    """hivefold.v1.LogService."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def ReadLog(self, request: pb.ReadLogRequest, context: Any) -> AsyncIterator[pb.ReadLogResponse]:
        """Streams records as stored; with `follow` until `up_to_sequence`, or for ever."""
        checking.refuse(checking.log_range(request.after_sequence, request.up_to_sequence))
        position, end = request.after_sequence, request.up_to_sequence
        source = await self._backing.source_at(position)
        check_position(source.state, position)
        while True:
            head = source.state.sequence
            up_to = min(head, end) if end else head
            if position < up_to:
                async for page in self._backing.log.read(after=position, up_to=up_to):
                    yield _response(page)
                position = up_to
            if not request.follow or (end and position >= end):
                return
            await _committed_after(source, position)

    async def GetHead(self, request: pb.GetHeadRequest, context: Any) -> pb.GetHeadResponse:
        """Gives the end of the log, and the digest of the state there if asked for."""
        # Both at once: what follows may wait while the writer goes on.
        backing = self._backing
        state, head_hash, standby = backing.state, backing.source.head_hash, backing.standby
        digest = await asyncio.to_thread(state_digest, state) if request.with_state_digest else ""
        return pb.GetHeadResponse(
            sequence=state.sequence,
            term=state.term,
            hash=head_hash.hex(),
            state_digest=digest,
            record_time=timestamp(state.time_us),
            coordinator_id=state.coordinator_id,
            durability=backing.durability,
            leading=standby is None and backing.writer.leading,
            leader_address=backing.leader(),
            answering_id=backing.coordinator_id,
            end_sequence=standby.end_sequence if standby else state.sequence,
            staleness=duration(standby.stale_ms * 1000) if standby else None,
        )

    async def ReadCheckpoints(
        self, request: pb.ReadCheckpointsRequest, context: Any
    ) -> AsyncIterator[pb.ReadCheckpointsResponse]:
        """Streams checkpoints, oldest first."""
        checking.refuse(checking.log_range(request.after_size, request.up_to_size, "size"))
        kept = kept_checkpoints(self._backing.signed, after=request.after_size, up_to=request.up_to_size)
        async with aclosing(kept):
            async for signed in kept:
                yield pb.ReadCheckpointsResponse(checkpoint=signed)

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: Any) -> pb.ListSegmentsResponse:
        """Lists segments by number."""
        pager = Pager("segments", [], request.page_size, request.page_token)
        places = await self._backing.places() if self._backing.places is not None else ()
        page = pager.page((key, place) for place in places if (key := f"{place.number:012d}") > pager.after)
        return pb.ListSegmentsResponse(segments=map(_segment, page.items), next_page_token=page.next_token)

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        """Changes the key that signs."""
        checking.refuse(checking.request_id(request.request_id))
        key = await self._backing.checkpoints.rotate(RequestId(request.request_id))
        return pb.RotateKeyResponse(key=key_message(key))

    async def HandOver(self, request: pb.HandOverRequest, context: Any) -> pb.HandOverResponse:
        """Ends a term."""
        checking.refuse(checking.hand_over(request))
        backing = self._backing
        term = backing.writer.state.term
        if request.term > term:
            raise ConflictError(f"term {request.term} has not begun: this is term {term}")
        if request.term == term and backing.hand_over is not None:
            await backing.hand_over()
        return pb.HandOverResponse(term=request.term)


async def _committed_after(source: Followed, position: int) -> None:
    """Returns once there is a record after `position`. Raises NotLeaderError when the source ends."""
    follower = source.follow()
    try:
        while source.state.sequence <= position:
            await anext(follower)
    except FollowerLaggedError:
        if source.ended:
            raise NotLeaderError("this coordinator no longer leads; read on from the last position") from None
    finally:
        follower.close()


def _segment(place: Place) -> pb.Segment:
    return pb.Segment(
        number=place.number,
        first_sequence=place.first,
        last_sequence=place.last,
        size_bytes=place.size_bytes,
        sealed=place.sealed,
        on_broker=place.on_broker,
        mirrored_sequence=place.mirrored,
        archive_path=place.archive_path,
        archive_verified=place.verified,
    )


def _response(page: Sequence[Stored]) -> pb.ReadLogResponse:
    return pb.ReadLogResponse(
        records=[
            record_pb2.StoredRecord(
                sequence=stored.sequence,
                subject=stored.subject,
                data=stored.data,
                hash=record_hash(stored.sequence, stored.subject, stored.data),
            )
            for stored in page
        ]
    )
