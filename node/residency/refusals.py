"""Why a model is not let in, in words that name the room, who has it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from hivefold.errors import LimitExceededError, Reason
from hivefold.v1 import model_pb2
from node.residency.policy import HOST, Full, Memory, Resident

_RETRY_MS: Final = 1000
_MIB: Final = 1024 * 1024


def no_room(
    model: model_pb2.Model, why: Full, residents: Mapping[str, Resident], expected_bytes: int, memory: Memory
) -> LimitExceededError:
    """The refusal. NODE_FULL may be tried again, here or elsewhere; OUT_OF_MEMORY not before something changed."""
    name = f"{model.name}@{model.version}"
    pinned = sum(resident.pinned for resident in residents.values())
    used = sum(resident.users > 0 for resident in residents.values())
    match why:
        case Full.LINE:
            said = f"this node has no room for {name} now: too many requests wait for room already"
        case Full.WAIT:
            said = f"no room for {name} came free in time: {used} of the {len(residents)} models here are in use"
        case Full.NEVER:
            return LimitExceededError(
                f"{name} takes {_mib(expected_bytes)} and does not fit on this node, whichever of its "
                f"{len(residents)} models goes: {pinned} are pinned, models may take "
                f"{_mib(memory.budget.get(HOST, 0))}, {_mib(max(0, memory.free.get(HOST, 0)))} are free; unpin one, "
                "give models more of the node (--models, --model-memory), or use a larger node",
                reason=Reason.OUT_OF_MEMORY,
                metadata={"needed_bytes": str(expected_bytes), "free_bytes": str(memory.free.get(HOST, 0))},
            )
        case _:
            assert_never(why)
    return LimitExceededError(
        f"{said}; try again in {_RETRY_MS} ms, ask another node, or give models more room (--models, --model-memory)",
        reason=Reason.NODE_FULL,
        metadata={"retry_ms": str(_RETRY_MS), "pinned": str(pinned), "in_use": str(used)},
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
