"""`hivefold log rotate-key`: have the log signed with a new key."""

from __future__ import annotations

from cli.address import Target
from cli.output import facts, show_one


def rotate_key(*, request_id: str = "", target: Target = Target()) -> None:  # noqa: B008 - frozen
    """Have the log signed with a new key from now on. The key before it endorses it, so nodes follow by themselves.

    Where coordinators run on several hosts, copy the leader's key_file to the others afterwards.

    Parameters
    ----------
    request_id
        Makes the call safe to repeat: the same id gives the same key.
    """
    key = target.ask(lambda fleet: fleet.log.rotate_key(request_id=request_id))
    show_one(target, key, lambda: facts([("key", key.key_id), ("endorsed by", key.previous_key_id)]))
