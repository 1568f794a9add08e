"""One loaded model behind several actors: runtimes that may be called from many threads need it in memory once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.session import Backend, Session
from actors.tensors import Array
from hivefold.models import TensorFacts


class SharedBackend:
    """Opens each file once; the last to close it releases it. `inner`'s sessions MUST allow concurrent runs."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._open: dict[Path, tuple[Session, int]] = {}

    def open(self, path: Path) -> SharedSession:
        """The file's model, loaded by the first who asks. Raises what `inner` raises."""
        # Each comes with a descriptor of its own: the same file all the same, named by its digest.
        file = path.resolve()
        with self._lock:
            session, users = self._open.get(file, (None, 0))
            if session is None:
                session = self._inner.open(path)
            self._open[file] = (session, users + 1)
        return SharedSession(self, file, session)

    def release(self, path: Path) -> None:
        """One user less."""
        with self._lock:
            session, users = self._open.pop(path)
            if users > 1:
                self._open[path] = (session, users - 1)
            else:
                session.close()


class SharedSession:
    """One user's hold on a model."""

    def __init__(self, backend: SharedBackend, path: Path, session: Session) -> None:
        self._backend = backend
        self._path = path
        self._session: Session | None = session
        self._inputs = session.inputs
        self._outputs = session.outputs

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """What it must be given."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """What it produces."""
        return self._outputs

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for these inputs."""
        assert self._session is not None
        return self._session.run(outputs, feeds)

    def close(self) -> None:
        """Lets go of it."""
        if self._session is not None:
            self._session = None
            self._backend.release(self._path)
