"""A fleet as a client sees it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hivefold.client.blobs import Blobs
from hivefold.client.connection import Connection
from hivefold.client.inference import Inference
from hivefold.client.jobs import Jobs
from hivefold.client.log import Log
from hivefold.client.models import Models
from hivefold.client.nodes import Nodes


class Fleet:
    """Jobs, models, nodes, blobs and the log, each under its name; `infer` asks a model. Use it in `async with`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.blobs = Blobs(connection)
        self.models = Models(connection)
        self.jobs = Jobs(connection, self.blobs, self.models)
        self.nodes = Nodes(connection)
        self.log = Log(connection)
        self._inference = Inference(self.models, self.nodes)
        self.infer = self._inference.infer

    async def __aenter__(self) -> Self:
        await self._connection.refresh()
        return self

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        await self._inference.close()
        await self._connection.close()
