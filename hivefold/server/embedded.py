"""A nats-server of our own: found, configured, started, watched, stopped.

DIR/server.conf   its configuration, with the passwords (0600)
DIR/passwords/    one file a user (0600)
DIR/store/        JetStream
DIR/server.log    what it says
DIR/port          where it listened last
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from hivefold.broker import BrokerSettings
from hivefold.errors import ConfigError
from hivefold.ids import NAME_RULE, is_name
from hivefold.log.naming import segment_number
from hivefold.server import accounts
from hivefold.server.binary import find_server
from hivefold.server.limits import (
    SERVER_GC_PERCENT,
    SERVER_HEAP,
    SERVER_PORTS,
    SERVER_START_S,
    SERVER_STOP_S,
)
from hivefold.server.mending import finish_changes
from hivefold.server.ports import any_free, is_free
from hivefold.server.private import Passwords, make_directory, write_private
from hivefold.server.probe import lets_in

DEFAULT_PORT: Final = 4222
_POLL_S: Final = 0.01
_log = structlog.get_logger(__name__)


class EmbeddedServer:
    """A nats-server whose whole state is below `directory`; one at a time may run there.

    Without `port` the port of the last start is taken again, else the next free one from 4222;
    a given port that is taken is a ConfigError, 0 is any free port. `nodes` get their users at once;
    others may be added while it runs.
    """

    def __init__(
        self, directory: Path, *, port: int | None = None, host: str = "127.0.0.1", nodes: Sequence[str] = ()
    ) -> None:
        self._directory = directory.absolute()
        self._host = host
        self._port = port
        self._users = (*accounts.COORDINATOR_USERS, *map(_user_of, nodes))

    async def start(self) -> RunningServer:
        """Starts the server and waits until JetStream serves.

        Raises ConfigError when there is no server program, no port, or another server runs here.
        """
        binary = await find_server()
        make_directory(self._directory)
        with contextlib.ExitStack() as undo:
            lock = _lock(self._directory)
            undo.callback(os.close, lock)
            passwords = Passwords(self._directory / "passwords")
            for user in self._users:
                passwords.of(user)
            await _end_orphan(self._directory, self._host, passwords)
            for stream in finish_changes(self._directory / "store"):
                _log.warning("a change of a stream was not finished when the server died; finished now", stream=stream)
            for port in self._ports():
                server = RunningServer(self._directory, self._host, port, passwords)
                if await server.launch(binary.path):
                    write_private(self._directory / "port", str(port))
                    server.at_end(undo.pop_all())
                    return server
        raise ConfigError(f"no free port for nats-server on {self._host}; name one that is free")

    def _ports(self) -> Iterator[int]:
        """The ports to try, each free a moment ago."""
        if self._port:
            if not is_free(self._host, self._port):
                raise ConfigError(f"port {self._port} of {self._host} is taken; stop its owner or name another port")
            yield self._port
            return
        last = _last_port(self._directory)
        if last and is_free(self._host, last):
            yield last
        for count in range(SERVER_PORTS):
            port = any_free(self._host) if self._port == 0 else DEFAULT_PORT + count
            if is_free(self._host, port):
                yield port


class RunningServer:
    """A started nats-server. `core`, `nodes`, `system` say how the coordinator reaches its accounts."""

    def __init__(self, directory: Path, host: str, port: int, passwords: Passwords) -> None:
        self._directory = directory
        self._host = host
        self._port = port
        self._passwords = passwords
        self._process: asyncio.subprocess.Process | None = None
        self._at_end = contextlib.ExitStack()
        self.url = f"nats://{host}:{port}"
        self.core = self._settings(accounts.CORE_USER)
        self.nodes = self._settings(accounts.NODES_USER)
        self.system = self._settings(accounts.SYSTEM_USER)
        self.audit = self._settings(accounts.MIRROR_USER)
        self.auditor = self._settings(accounts.AUDIT_USER, f"_INBOX_{accounts.AUDIT_USER}")
        self.follower = self._settings(accounts.FOLLOWER_USER, f"_INBOX_{accounts.FOLLOWER_USER}")

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._running.pid

    @property
    def exited(self) -> bool:
        """Whether the server has ended."""
        return self._running.returncode is not None

    async def node(self, node_id: str) -> BrokerSettings:
        """How one node reaches the server; makes its user on first use, without a restart."""
        user = _user_of(node_id)
        if user not in self._passwords.users():
            self._passwords.of(user)
            await self._reload(user)
        return self._settings(user, accounts.inbox_prefix(node_id))

    async def wait(self) -> int:
        """Waits until the server ends, for whatever reason; its exit code (negative: the signal)."""
        return await self._running.wait()

    async def stop(self) -> None:
        """Ends the server in order; kills it when it takes too long. Idempotent."""
        process = self._running
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(SERVER_STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._at_end.close()

    async def launch(self, program: Path) -> bool:
        """Starts the process and waits until it serves; False when the port was taken meanwhile."""
        self._write_configuration()
        with (self._directory / "start.log").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                program,
                "--config",
                self._directory / "server.conf",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"GOGC": SERVER_GC_PERCENT, "GOMEMLIMIT": SERVER_HEAP, **os.environ},
                start_new_session=True,  # Ctrl-C is for `up`: it stops its daemons before the server
            )
        try:
            return await self._until_ready()
        except BaseException:
            await self.stop()
            raise

    def at_end(self, undo: contextlib.ExitStack) -> None:
        """What `stop` has to give back."""
        self._at_end = undo

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "launched by EmbeddedServer.start"
        return self._process

    async def _until_ready(self) -> bool:
        deadline = asyncio.get_running_loop().time() + SERVER_START_S
        while not await self._lets_in(accounts.SYSTEM_USER):
            if self._running.returncode is not None:
                if not is_free(self._host, self._port):
                    return False
                raise ConfigError(f"nats-server did not start: {_last_words(self._directory)}")
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigError(
                    f"nats-server is not ready after {SERVER_START_S:g} s: {_last_words(self._directory)}"
                )
            await asyncio.sleep(_POLL_S)
        return True

    async def _reload(self, new_user: str) -> None:
        """Lets the server read its users anew."""
        self._write_configuration()
        self._running.send_signal(signal.SIGHUP)
        deadline = asyncio.get_running_loop().time() + SERVER_STOP_S
        while not await self._lets_in(new_user):
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigError(f"nats-server did not take user {new_user}: {_last_words(self._directory)}")
            await asyncio.sleep(_POLL_S)

    async def _lets_in(self, user: str) -> bool:
        return await lets_in(self._host, self._port, user, self._passwords.of(user))

    def _write_configuration(self) -> None:
        text = accounts.server_configuration(
            host=self._host,
            port=self._port,
            directory=self._directory,
            passwords={user: self._passwords.of(user) for user in self._passwords.users()},
            segments=_last_segment(self._directory / "store") + accounts.SEGMENTS_AHEAD,
        )
        write_private(self._directory / "server.conf", text)

    def _settings(self, user: str, inbox_prefix: str = "_INBOX") -> BrokerSettings:
        return BrokerSettings(
            servers=(self.url,), user=user, password=self._passwords.of(user), inbox_prefix=inbox_prefix
        )


def _last_segment(store: Path) -> int:
    """The highest number that a segment of the log, or its mirror, has on the disk; 0 where there is none."""
    streams = store.glob("jetstream/*/streams/*")
    return max((segment_number(path.name) for path in streams), default=0)


def _user_of(node_id: str) -> str:
    if not is_name(node_id):
        raise ConfigError(f"{node_id!r} cannot name a node: {NAME_RULE}")
    return accounts.node_user(node_id)


def _lock(directory: Path) -> int:
    """Takes the directory; the lock goes with the process that holds it."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(f"another hivefold runs in {directory}; stop it or name another directory") from None
    return lock


async def _end_orphan(directory: Path, host: str, passwords: Passwords) -> None:
    """Ends the server of a start whose process was killed: two servers on one store would ruin it.

    It is ours when it takes our password.
    """
    port = _last_port(directory)
    if not port or not await lets_in(host, port, accounts.SYSTEM_USER, passwords.of(accounts.SYSTEM_USER)):
        return
    pid = int((directory / "server.pid").read_text())
    deadline = asyncio.get_running_loop().time() + SERVER_STOP_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while not _has_ended(pid):
            await asyncio.sleep(_POLL_S)
            os.kill(pid, 0 if asyncio.get_running_loop().time() < deadline else signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether a process has ended whose end nobody collected: where no parent does, it stays in the table for ever."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False  # no such process, which a signal tells, or a system that keeps no such files
    return state in {"Z", "X"}


def _last_port(directory: Path) -> int:
    """Where the server listened last; 0 when that is not known."""
    try:
        return int((directory / "port").read_text())
    except (OSError, ValueError):
        return 0


def _last_words(directory: Path) -> str:
    """The last thing the server said, for the error message."""
    for name in ("start.log", "server.log"):
        with contextlib.suppress(OSError):
            lines = (directory / name).read_text(encoding="utf-8", errors="replace").split("\n")
            said = [line for line in lines if line.strip()]
            if said:
                return f"{said[-1].strip()} (see {directory / name})"
    return f"it said nothing (see {directory})"
