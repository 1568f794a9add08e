"""Uploads while the leadership moves: begun again with what they began with, and never without end."""
# ruff: noqa: N802 - methods are named by the contract

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hivefold import limits
from hivefold.client import Fleet, connect
from hivefold.client.connection import Connection
from hivefold.client.models import Models
from hivefold.errors import DataRefusedError, HivefoldError, NotLeaderError
from hivefold.rpc import RpcServer, Service
from hivefold.v1 import blob_pb2, model_service_pb2
from hivefold.v1 import blob_service_pb2 as pb
from hivefold.v1.blob_service_pb2_grpc import BlobServiceServicer, add_BlobServiceServicer_to_server

PIECES = [b"abc", b"def", b"g"]


class Scripted(BlobServiceServicer):
    """Takes uploads; refuses the first ones, before or after it has read them."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.uploads: list[tuple[str, bytes]] = []

    async def UploadBlob(self, request_iterator: Any, context: Any) -> pb.UploadBlobResponse:
        refusal = self.refusals.pop(0) if self.refusals else ""
        if refusal == "at once":
            raise NotLeaderError("another leads")
        request_id, data = "", b""
        async for request in request_iterator:
            request_id, data = request_id or request.request_id, data + request.data
        self.uploads.append((request_id, data))
        if refusal:
            raise NotLeaderError("another leads by now")
        return pb.UploadBlobResponse(blob=blob_pb2.BlobRef(root="r", size_bytes=len(data)))

    async def RegisterManifest(self, request: pb.RegisterManifestRequest, context: Any) -> pb.RegisterManifestResponse:
        raise NotImplementedError

    async def DownloadBlob(
        self, request: pb.DownloadBlobRequest, context: Any
    ) -> AsyncIterator[pb.DownloadBlobResponse]:
        for data in PIECES:
            yield pb.DownloadBlobResponse(data=data)


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
async def fleet(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(limits, "CALL_RETRY_MS", 1)
    add: Callable[[Any], None] = lambda raw: add_BlobServiceServicer_to_server(script, raw)  # noqa: E731
    server = RpcServer([Service("hivefold.v1.BlobService", add)])
    address = server.bind()
    await server.start()
    async with connect(address) as fleet:
        yield fleet
    await server.stop(0)


@pytest.mark.parametrize("refusals", [[], ["at once"], ["at the end"], ["at the end", "at once", "at the end"]])
async def test_an_upload_is_begun_again(fleet: Fleet, script: Scripted, refusals: list[str]) -> None:
    """Whenever it is refused for another leads: the whole content comes again, under the same request."""
    script.refusals = list(refusals)

    blob = await fleet.blobs.upload(lambda: iter(PIECES), 7)

    assert blob.size_bytes == 7
    assert len(script.uploads) == refusals.count("at the end") + 1
    assert len({request_id for request_id, _ in script.uploads}) == 1
    assert {data for _, data in script.uploads} == {b"abcdefg"}


async def test_an_upload_gives_up_in_the_end(fleet: Fleet, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that finds no leader is reported."""
    monkeypatch.setattr(limits, "CALL_ELECTION_MS", 20)
    script.refusals = ["at once"] * 100_000

    with pytest.raises(NotLeaderError):
        await fleet.blobs.upload(lambda: iter(PIECES), 7)


async def test_rows_that_cannot_be_read_are_told_as_they_are(fleet: Fleet, script: Scripted) -> None:
    """What the caller's own data raise is no reason to send them again."""

    def pieces() -> Iterator[bytes]:
        yield PIECES[0]
        raise DataRefusedError("row 7 is torn")

    with pytest.raises(HivefoldError, match="row 7 is torn"):
        await fleet.blobs.upload(pieces, 7)
    assert len(script.uploads) <= 1


async def test_the_upload_of_a_model_tells_how_far_it_is(tmp_path: Path) -> None:
    """Piece by piece, up to all of the file, and what arrives is the file."""

    class Sink:
        async def call(
            self, kind: Any, method: str, requests: Callable[[], AsyncIterator[Any]], timeout_s: float
        ) -> Any:
            self.data = b"".join([request.data async for request in requests()])
            return model_service_pb2.UploadModelResponse()

    content = bytes(limits.STREAM_PIECE_BYTES) + b"the end"
    (tmp_path / "a.onnx").write_bytes(content)
    told: list[tuple[int, int]] = []
    sink = Sink()
    await Models(cast(Connection, sink)).add(
        tmp_path / "a.onnx", "a", on_progress=lambda sent, total: told.append((sent, total))
    )

    assert told == [(limits.STREAM_PIECE_BYTES, len(content)), (len(content), len(content))]
    assert sink.data == content
