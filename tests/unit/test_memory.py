"""The allocator's settings."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from hivefold.memory import PeakResident, allocated_bytes, give_back_freed

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


@pytest.mark.skipif(not allocated_bytes(), reason="this C library does not count")
def test_the_allocator_counts_what_it_gave() -> None:
    """An array counts while it is there, and the most that was resident is known later.

    Resident memory rises only by what was not resident: an array that lies where something was freed before and kept
    adds nothing to it. That is no error of the peak, hence `give_back_freed` first; what counts such an array all the
    same is the allocator (tests/unit/actors/test_footprint.py).
    """
    give_back_freed()
    peak, before = PeakResident(), allocated_bytes()
    array = np.ones(16 * 1024 * 1024, "u1")
    assert 16 * 1024 * 1024 <= allocated_bytes() - before < 18 * 1024 * 1024
    del array
    give_back_freed()
    assert allocated_bytes() - before < 2 * 1024 * 1024
    assert platform.system() != "Linux" or peak.rise_bytes() >= 15 * 1024 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="proc(5)")
def test_a_process_is_not_charged_with_the_memory_of_its_parent() -> None:
    """What a large process starts has a peak of its own, which getrusage does not tell."""
    ballast = b"\1" * (200 << 20)
    code = "from hivefold.memory import peak_resident_bytes; print(peak_resident_bytes())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    del ballast

    assert 0 < int(told) < 100 << 20
