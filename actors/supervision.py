"""When a failed actor is started again. Pure: failures and the time in, a decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `max_failures` failures within `window_ms`; the wait doubles with each of them."""

    max_failures: int = 5
    window_ms: int = 60_000
    first_wait_ms: int = 100
    longest_wait_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again, not before `after_ms` milliseconds from now."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop for good: it failed `failures` times within the policy's window."""

    failures: int


Verdict: TypeAlias = Restart | GiveUp


def judge(failures_ms: Sequence[int], now_ms: int, policy: RestartPolicy) -> Verdict:
    """What to do about an actor that failed at the times `failures_ms`, the last of them just now.

    Failures before the policy's window are forgiven.
    """
    recent = sum(1 for at_ms in failures_ms if now_ms - at_ms < policy.window_ms)
    if recent > policy.max_failures:
        return GiveUp(failures=recent)
    doubled = policy.first_wait_ms << min(max(recent - 1, 0), 30)
    return Restart(after_ms=min(doubled, policy.longest_wait_ms))


def remembered(failures_ms: Sequence[int], now_ms: int, policy: RestartPolicy) -> tuple[int, ...]:
    """The failures that still count at `now_ms`; never more than the policy can tell apart."""
    recent = tuple(at_ms for at_ms in failures_ms if now_ms - at_ms < policy.window_ms)
    return recent[-(policy.max_failures + 1) :]
