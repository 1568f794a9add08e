"""The client for programs without asyncio: the same names and parameters, each call run to its end."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from hivefold.client.audit import Audit
from hivefold.client.background import Background
from hivefold.client.blobs import Blobs
from hivefold.client.fleet import Fleet
from hivefold.client.handles import JobHandle
from hivefold.client.jobs import Jobs
from hivefold.client.log import Log
from hivefold.client.models import Models
from hivefold.client.nodes import Nodes
from hivefold.v1 import job_pb2

_Inner = TypeVar("_Inner")
_Value = TypeVar("_Value")
_Parameters = ParamSpec("_Parameters")


class _Blocking(Generic[_Inner]):
    """The blocking face of something."""

    def __init__(self, inner: _Inner, background: Background) -> None:
        self._inner = inner
        self._background = background


def _calling(
    call: Callable[Concatenate[_Inner, _Parameters], Coroutine[Any, Any, _Value]],
) -> Callable[Concatenate[_Blocking[_Inner], _Parameters], _Value]:
    """A call that blocks until it has its answer. Callbacks are called in the client's thread."""

    @functools.wraps(call)
    def run(self: _Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Value:
        return self._background.run(call(self._inner, *args, **kwargs))

    return run


def _iterating(
    call: Callable[Concatenate[_Inner, _Parameters], AsyncIterator[_Value]],
) -> Callable[Concatenate[_Blocking[_Inner], _Parameters], Iterator[_Value]]:
    """An iterator that blocks until it has the next item."""

    @functools.wraps(call)
    def run(self: _Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Iterator[_Value]:
        items = call(self._inner, *args, **kwargs)
        try:
            while True:
                yield self._background.run(_following(items))
        except StopAsyncIteration:
            return
        finally:
            if isinstance(items, AsyncGenerator):
                self._background.run(_closed(items))

    return run


def _handing(
    call: Callable[Concatenate[_Inner, _Parameters], Coroutine[Any, Any, JobHandle]],
) -> Callable[Concatenate[_Blocking[_Inner], _Parameters], SyncJobHandle]:
    """A call that gives a handle, which blocks as well."""

    @functools.wraps(call)
    def run(self: _Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> SyncJobHandle:
        return SyncJobHandle(self._background.run(call(self._inner, *args, **kwargs)), self._background)

    return run


async def _following(items: AsyncIterator[_Value]) -> _Value:
    return await anext(items)


async def _closed(items: AsyncGenerator[Any, Any]) -> None:
    await items.aclose()


class SyncJobHandle(_Blocking[JobHandle]):
    """As JobHandle."""

    @property
    def job_id(self) -> str:
        """As JobHandle.job_id."""
        return self._inner.job_id

    @property
    def message(self) -> job_pb2.Job:
        """As JobHandle.message."""
        return self._inner.message

    progress = _calling(JobHandle.progress)
    watch = _iterating(JobHandle.watch)
    wait = _calling(JobHandle.wait)
    outputs = _calling(JobHandle.outputs)
    save = _calling(JobHandle.save)
    cancel = _calling(JobHandle.cancel)
    erase = _calling(JobHandle.erase)


class SyncBlobs(_Blocking[Blobs]):
    """As Blobs."""

    upload = _calling(Blobs.upload)
    register_file = _calling(Blobs.register_file)
    download = _iterating(Blobs.download)


class SyncModels(_Blocking[Models]):
    """As Models."""

    add = _calling(Models.add)
    get = _calling(Models.get)
    list = _iterating(Models.list)
    describe = _calling(Models.describe)
    move_alias = _calling(Models.move_alias)
    remove_alias = _calling(Models.remove_alias)
    aliases = _iterating(Models.aliases)
    keep = _calling(Models.keep)
    wait_loaded = _calling(Models.wait_loaded)
    replicas = _iterating(Models.replicas)
    remove = _calling(Models.remove)


class SyncJobs(_Blocking[Jobs]):
    """As Jobs."""

    submit = _calling(Jobs.submit)
    run = _calling(Jobs.run)
    submit_infer = _calling(Jobs.submit_infer)
    run_infer = _calling(Jobs.run_infer)
    submit_probe = _calling(Jobs.submit_probe)
    run_probe = _calling(Jobs.run_probe)
    get = _calling(Jobs.get)
    list = _iterating(Jobs.list)
    tasks = _iterating(Jobs.tasks)
    why = _calling(Jobs.why)
    watch = _iterating(Jobs.watch)
    wait = _calling(Jobs.wait)
    cancel = _calling(Jobs.cancel)
    erase = _calling(Jobs.erase)
    download_output = _calling(Jobs.download_output)
    outputs = _calling(Jobs.outputs)


class SyncNodes(_Blocking[Nodes]):
    """As Nodes."""

    list = _iterating(Nodes.list)
    get = _calling(Nodes.get)
    watch = _iterating(Nodes.watch)
    drain = _calling(Nodes.drain)
    undrain = _calling(Nodes.undrain)


class SyncLog(_Blocking[Log]):
    """As Log."""

    read = _iterating(Log.read)
    pages = _iterating(Log.pages)
    head = _calling(Log.head)
    checkpoints = _iterating(Log.checkpoints)
    segments = _iterating(Log.segments)
    hand_over = _calling(Log.hand_over)
    rotate_key = _calling(Log.rotate_key)


class SyncAudit(_Blocking[Audit]):
    """As Audit."""

    inference_batches = _iterating(Audit.inference_batches)


class SyncFleet(_Blocking[Fleet]):
    """As Fleet, in `with`. Any thread may call it, and one with a running event loop, as in a notebook, too."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet, Background())
        self.blobs = SyncBlobs(fleet.blobs, self._background)
        self.models = SyncModels(fleet.models, self._background)
        self.jobs = SyncJobs(fleet.jobs, self._background)
        self.nodes = SyncNodes(fleet.nodes, self._background)
        self.log = SyncLog(fleet.log, self._background)
        self.audit = SyncAudit(fleet.audit, self._background)

    def __enter__(self) -> Self:
        self._background.start()
        with contextlib.ExitStack() as undo:
            undo.callback(self._background.stop)
            self._background.run(self._inner.__aenter__())
            undo.pop_all()
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        try:
            self._background.run(self._inner.__aexit__(None, None, None))
        finally:
            self._background.stop()

    infer = _calling(Fleet.infer)
    submit = _handing(Fleet.submit)
    job = _handing(Fleet.job)
