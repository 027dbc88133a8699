"""Memory that was freed is there again without the system's help."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library is told anything")

FAULTS = """
import resource, torch
from unperturbed.cli.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def work():
    tensors = [torch.ones(6_000_000) for _ in range(5)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool, **environment: str) -> int:
    """Return how many pages the system had to give to a process that needs the same memory again and again."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    call = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(call, env=own | environment, check=True, capture_output=True, text=True).stdout)


def test_freed_memory_is_kept() -> None:
    assert faults(True) < 0.1 * faults(False)


def test_thresholds_of_the_users_own_stand() -> None:
    assert faults(True, MALLOC_TRIM_THRESHOLD_="1000000", MALLOC_MMAP_THRESHOLD_="1000000") > 10 * faults(True)
