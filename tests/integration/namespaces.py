"""Machines as network namespaces, each with one link to the server, that can be cut in one direction or in both.

Run below `unshare --user --net --map-root-user`: nothing of the real network is touched, and no privilege is needed
where user namespaces are allowed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

BELOW: Final = ("unshare", "--user", "--net", "--map-root-user")
"""What a command that uses this module is run by."""


def possible() -> bool:
    """Whether this system lets us make namespaces and links."""
    script = "ip link set lo up && ip link add x type veth peer name y"
    try:
        return (
            subprocess.run([*BELOW, "sh", "-c", script], capture_output=True, timeout=20, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


class Machine:
    """A machine of its own at the end of a link: here it is `near`, there it is `far`."""

    def __init__(self, number: int) -> None:
        self.near, self.far = f"10.9.{number}.1", f"10.9.{number}.2"
        self._link = f"m{number}"
        # Its end is known by its process; it ends when its input is closed.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._wait_for_own_network()
        pid = str(self._holder.pid)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "up0", "netns", pid)
        run("ip", "addr", "add", f"{self.near}/24", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        for command in (("addr", "add", f"{self.far}/24", "dev", "up0"), ("link", "set", "up0", "up")):
            run(*self.inside("ip", *command))
        run(*self.inside("ip", "link", "set", "lo", "up"))

    def inside(self, *command: str | Path) -> Sequence[str | Path]:
        """The command, as it is run on this machine."""
        return ("nsenter", "--target", str(self._holder.pid), "--net", "--", *command)

    def cut(self) -> None:
        """Nothing passes any more; nobody is told."""
        self.deafen()
        self.silence()

    def deafen(self) -> None:
        """What is sent to it is lost; it can still send."""
        run("ip", "route", "add", "blackhole", f"{self.far}/32")

    def silence(self) -> None:
        """What it sends is lost; it can still hear."""
        run(*self.inside("ip", "route", "add", "blackhole", f"{self.near}/32"))

    def heal(self) -> None:
        """Everything passes again."""
        subprocess.run(["ip", "route", "del", "blackhole", f"{self.far}/32"], capture_output=True, check=False)
        inside = self.inside("ip", "route", "del", "blackhole", f"{self.near}/32")
        subprocess.run(inside, capture_output=True, check=False)

    def slow_down(self) -> None:
        """Everything that is sent to it comes late and slowly: 2 Mbit/s, up to half a second in the queue."""
        run("tc", "qdisc", "add", "dev", self._link, "root", "tbf", "rate", "2mbit", "burst", "4kb", "latency", "500ms")

    def end(self) -> None:
        """Gives the machine back."""
        self._holder.kill()
        self._holder.wait()

    def _wait_for_own_network(self) -> None:
        ours = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._holder.pid}/ns/net").readlink() == ours:
            pass


def run(*command: str | Path) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
