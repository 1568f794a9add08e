"""A fleet as a client sees it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hivefold import limits
from hivefold.client.audit import Audit
from hivefold.client.blobs import Blobs
from hivefold.client.connection import Connection
from hivefold.client.data import Rows
from hivefold.client.handles import JobHandle
from hivefold.client.inference import Inference, Inputs
from hivefold.client.jobs import InferOptions, JobOptions, Jobs
from hivefold.client.log import Log
from hivefold.client.models import Models
from hivefold.client.nodes import Nodes
from hivefold.oip.limits import DEFAULT_PRIORITY
from hivefold.v1 import job_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Fleet:
    """Asks models and submits jobs; the calls to the coordinator are under jobs, models, nodes, blobs, log and audit.

    Use it in `async with`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.blobs = Blobs(connection)
        self.models = Models(connection)
        self.jobs = Jobs(connection, self.blobs, self.models)
        self.nodes = Nodes(connection)
        self.log = Log(connection)
        self.audit = Audit(connection)
        self._inference = Inference(self.models, self.nodes)

    async def __aenter__(self) -> Self:
        await self._connection.refresh()
        return self

    async def __aexit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        await self._inference.close()
        await self._connection.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        priority: int = DEFAULT_PRIORITY,
        timeout_s: float = limits.GRPC_DEADLINE_S,
    ) -> dict[str, NDArray[Any]]:
        """The outputs of a model ("digits", "digits@3", "digits@prod"), or those named in `outputs`.

        They are arrays that must not be written to. `priority` is from 1, which goes first, to 3. A full node is asked
        again when it said, another one at once where one is lost, all within `timeout_s`. Raises NotFoundError,
        DataRefusedError for inputs that do not fit (values are never converted silently), LimitExceededError,
        UnavailableError.
        """
        return await self._inference.infer(model, inputs, outputs=outputs, priority=priority, timeout_s=timeout_s)

    async def submit(
        self, model: str, rows: Rows, *, infer: InferOptions | None = None, options: JobOptions | None = None
    ) -> JobHandle:
        """Runs every row of an array, or of a .npy, .npz or .csv file, through a model, as a job.

        Raises NotFoundError for the model, DataRefusedError for the rows, InvalidRequestError.
        """
        return JobHandle(self.jobs, await self.jobs.submit_infer(model, rows, infer=infer, options=options))

    async def job(self, job: job_pb2.Job | str) -> JobHandle:
        """The handle of any job, by its id or by what another call told of it. Raises NotFoundError."""
        return JobHandle(self.jobs, job if isinstance(job, job_pb2.Job) else await self.jobs.get(job))
