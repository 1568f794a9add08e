"""The allocator's settings."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource
from hivefold.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        blocks = [bytes(1 << 20) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual, kept = faults(), keep_freed_memory()
print(kept, usual, faults())
"""


def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    """A stream of 1 MiB messages costs page faults once, not once a message."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    kept, usual, after = done.stdout.split()

    assert kept == "False" or int(after) < int(usual) / 4
