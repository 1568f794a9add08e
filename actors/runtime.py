"""Actors: behaviours, each in a thread of its own, behind a bounded inbox. The only place that knows Pykka.

What Pykka leaves open is settled here:

- an inbox holds at most `inbox_messages` of ours; stopping is always possible, even when it is full;
- a reply calls back instead of parking a thread, and it always comes: from the behaviour, or as
  ActorStoppedError when the actor ended first;
- a behaviour that fails, while it starts or later, is judged by actors.supervision; a
  `BaseException` in one actor (which makes Pykka stop all of them) stays that actor's own.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar, cast

import pykka
import structlog

from actors.supervision import GiveUp, Restart, RestartPolicy, judge, remembered
from hivefold.clock import Clock, SystemClock
from hivefold.errors import HivefoldError, LimitExceededError, Reason, UnavailableError
from hivefold.limits import INBOX_MESSAGES

_log = structlog.get_logger(__name__)

M = TypeVar("M")
R = TypeVar("R")
M_contra = TypeVar("M_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Behavior(Protocol[M_contra, R_co]):
    """What an actor does. Plain: no threads, no futures, no Pykka; the same class runs in a simulation.

    `receive` may raise HivefoldError to refuse one message: the caller gets it and the behaviour
    goes on. Any other exception is a failure: the behaviour is stopped and supervision decides.
    """

    def start(self) -> None:
        """Called once before the first message, in the actor's thread."""
        ...

    def receive(self, message: M_contra) -> R_co:
        """Handles one message; what it returns is the reply."""
        ...

    def stop(self) -> None:
        """Called once at the end if `start` succeeded. MUST release everything."""
        ...


class InboxFullError(LimitExceededError):
    """The actor has as many messages waiting as it may have; send less or try later."""


class ActorStoppedError(UnavailableError):
    """The actor has ended and will not answer; start another or try elsewhere."""

    default_reason = Reason.RUNTIME_FAILED


class ActorRestartingError(UnavailableError):
    """The behaviour failed a moment ago and is not started again yet; try again later."""

    default_reason = Reason.RUNTIME_FAILED


class BehaviorFailedError(HivefoldError):
    """The behaviour failed on this message; what it was is in the message."""

    default_reason = Reason.RUNTIME_FAILED


@dataclass(frozen=True, slots=True)
class Failed:
    """A behaviour failed; it will be started again in `restart_after_ms`, or never if that is None."""

    actor: str
    error: BaseException
    restart_after_ms: int | None


Watcher: TypeAlias = Callable[[Failed], None]
"""Told of failures in the actor's thread; MUST return at once (an outlet does)."""

ReplyCallback: TypeAlias = Callable[[Any, BaseException | None], None]
"""Given the reply and None, or None and the error, in any thread; MUST return at once."""


class ReplyFuture(pykka.ThreadingFuture[Any]):
    """A future that calls back once it is set, in the thread that sets it."""

    def __init__(self) -> None:
        super().__init__()
        self._callback: ReplyCallback | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None

    def when_set(self, callback: ReplyCallback) -> None:
        """Calls `callback` once: when the reply comes, or now if it is there."""
        with self._condition:
            if self._outcome is None:
                self._callback = callback
                return
        callback(*self._outcome)

    def set(self, value: Any | None = None) -> None:
        """Sets the reply."""
        super().set(value)
        self._settle(value, None)

    def set_exception(self, exc_info: Any = None) -> None:
        """Sets the error in place of a reply."""
        super().set_exception(exc_info)
        assert self._result is not None
        assert self._result.exc_info is not None
        self._settle(None, self._result.exc_info[1])

    def _settle(self, value: Any, error: BaseException | None) -> None:
        with self._condition:
            self._outcome = (value, error)
            callback, self._callback = self._callback, None
        if callback is not None:
            callback(value, error)


class BoundedInbox:
    """Pykka's inbox, bounded for our letters; control messages are always admitted."""

    def __init__(self, capacity: int = INBOX_MESSAGES) -> None:
        self.capacity = capacity
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def put(self, envelope: Any, /) -> None:
        """Adds a message. Raises InboxFullError, ActorStoppedError; control messages never fail."""
        control = not isinstance(envelope.message, _Letter)
        with self._lock:
            if not self._closed:
                if not control and self._queue.qsize() >= self.capacity:
                    raise InboxFullError(
                        f"an actor has {self.capacity} messages waiting; send more once some are answered",
                        metadata={"limit": "INBOX_MESSAGES", "value": str(self.capacity)},
                    )
                self._queue.put(envelope)
                return
        if not control:
            raise _stopped("it")
        if envelope.reply_to is not None:
            envelope.reply_to.set(None)

    def get(self) -> Any:
        """Waits for the next message."""
        return self._queue.get()

    def empty(self) -> bool:
        """Whether nothing is left; closes the inbox if so.

        Pykka asks only when the actor ends, to answer what is left: closing in the same step is
        what keeps a message that races the end from being lost.
        """
        with self._lock:
            self._closed = self._queue.empty()
            return self._closed


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message with the context it was sent in: trace and log keys are context variables."""

    message: Any
    context: contextvars.Context


class Shell(pykka.ThreadingActor):
    """The actor around a behaviour. A failed behaviour is replaced when the next message after the wait comes."""

    use_daemon_thread: ClassVar[bool] = True  # a model that hangs must not keep the process

    def __init__(
        self,
        *,
        name: str,
        factory: Callable[[], Behavior[Any, Any]],
        policy: RestartPolicy,
        clock: Clock,
        watcher: Watcher | None,
        inbox_messages: int,
        ended: threading.Event,
    ) -> None:
        super().__init__()
        cast(BoundedInbox, self.actor_inbox).capacity = inbox_messages
        self._ended = ended
        self._name = name
        self._factory = factory
        self._policy = policy
        self._clock = clock
        self._watcher = watcher
        self._behavior: Behavior[Any, Any] | None = None
        self._failures_ms: tuple[int, ...] = ()
        self._restart_at_ms = 0

    @staticmethod
    def _create_actor_inbox() -> BoundedInbox:
        return BoundedInbox()

    @staticmethod
    def _create_future() -> ReplyFuture:
        return ReplyFuture()

    def _actor_loop(self) -> None:
        threading.current_thread().name = self._name
        try:
            super()._actor_loop()
        finally:
            self._ended.set()

    def on_start(self) -> None:
        """Starts the behaviour; a failure goes to supervision, never to Pykka."""
        self._start_behavior()

    def on_receive(self, message: Any) -> Any:
        """Hands the letter to the behaviour in the context it was sent in."""
        assert isinstance(message, _Letter)
        behavior = self._ready()
        try:
            return message.context.run(behavior.receive, message.message)
        except HivefoldError:
            raise
        except BaseException as error:
            self._fail(error)
            raise _failure(self._name, error) from error

    def on_stop(self) -> None:
        """Stops the behaviour."""
        self._stop_behavior()

    def _ready(self) -> Behavior[Any, Any]:
        if self._behavior is None:
            wait_ms = self._restart_at_ms - self._clock.monotonic_ms()
            if wait_ms > 0:
                raise ActorRestartingError(f"{self._name} failed and starts again in {wait_ms} ms; try again then")
            self._start_behavior()
        if self._behavior is None:
            raise ActorRestartingError(f"{self._name} could not be started; its log line says why; try again later")
        return self._behavior

    def _start_behavior(self) -> None:
        try:
            behavior = self._factory()
            behavior.start()
        except BaseException as error:  # noqa: BLE001 - Pykka would stop every actor of the process
            self._fail(error)
        else:
            self._behavior = behavior

    def _stop_behavior(self) -> None:
        behavior, self._behavior = self._behavior, None
        if behavior is not None:
            try:
                behavior.stop()
            except BaseException as error:  # noqa: BLE001 - as above; it is gone either way
                _log.error("actor.stop_failed", actor=self._name, error=repr(error))

    def _fail(self, error: BaseException) -> None:
        self._stop_behavior()
        now_ms = self._clock.monotonic_ms()
        self._failures_ms = remembered((*self._failures_ms, now_ms), now_ms, self._policy)
        after_ms: int | None = None
        match judge(self._failures_ms, now_ms, self._policy):
            case Restart(after_ms=after_ms):
                self._restart_at_ms = now_ms + after_ms
            case GiveUp():
                self._stop()
        _log.error("actor.failed", actor=self._name, error=repr(error), restart_after_ms=after_ms)
        if self._watcher is not None:
            self._watcher(Failed(self._name, error, after_ms))


class ActorRef(Generic[M, R]):
    """An actor to send messages to."""

    def __init__(self, name: str, ref: pykka.ActorRef[Shell], ended: threading.Event) -> None:
        self.name = name
        self._ref = ref
        self._ended = ended

    def __repr__(self) -> str:
        return f"ActorRef({self.name!r})"

    @property
    def alive(self) -> bool:
        """Whether it takes messages."""
        return self._ref.is_alive()

    def ask(self, message: M, reply: Callable[[R | None, BaseException | None], None]) -> None:
        """Sends `message`; `reply` is called exactly once, in the actor's thread or this one.

        Raises InboxFullError, and then does not call it.
        """
        letter = _Letter(message, contextvars.copy_context())
        try:
            future = self._ref.ask(letter, block=False)
        except ActorStoppedError:
            reply(None, _stopped(self.name))
        else:
            cast(ReplyFuture, future).when_set(lambda value, error: reply(value, self._told(error)))

    def tell(self, message: M) -> None:
        """Sends `message` and wants no reply. Raises InboxFullError."""
        self.ask(message, _unwanted)

    def stop(self) -> None:
        """Asks it to end after the messages before this one. Never blocks, never fails."""
        self._ref.stop(block=False)

    def join(self, timeout_s: float) -> bool:
        """Waits until its thread is at its end; False if that took longer. Not for the event loop."""
        return self._ended.wait(timeout_s)

    def _told(self, error: BaseException | None) -> BaseException | None:
        return _stopped(self.name) if isinstance(error, pykka.ActorDeadError) else error


DEFAULT_POLICY: Final = RestartPolicy()


def spawn(
    factory: Callable[[], Behavior[M, R]],
    *,
    name: str,
    policy: RestartPolicy = DEFAULT_POLICY,
    clock: Clock | None = None,
    watcher: Watcher | None = None,
    inbox_messages: int = INBOX_MESSAGES,
) -> ActorRef[M, R]:
    """Starts an actor: `factory` makes its behaviour, now and after each failure, in the actor's thread.

    A behaviour that cannot start does not fail this call: supervision judges it, `watcher` is told,
    and messages are refused with ActorRestartingError or ActorStoppedError.
    """
    ended = threading.Event()
    ref = Shell.start(
        name=name,
        factory=factory,
        policy=policy,
        clock=clock or SystemClock(),
        watcher=watcher,
        inbox_messages=inbox_messages,
        ended=ended,
    )
    return ActorRef(name, ref, ended)


def _unwanted(_value: object, _error: BaseException | None) -> None:
    """The reply to a message that wants none."""


def _stopped(name: str) -> ActorStoppedError:
    return ActorStoppedError(f"{name} has ended and will not answer; start another or try elsewhere")


def _failure(name: str, error: BaseException) -> BehaviorFailedError:
    if isinstance(error, MemoryError):
        return BehaviorFailedError(
            f"{name} ran out of memory; give the node more, or use smaller batches", reason=Reason.OUT_OF_MEMORY
        )
    # What it says may hold values of what it worked on: that stays in this process' own log lines.
    return BehaviorFailedError(f"{name} failed ({type(error).__name__}); the log lines of its process say more")
