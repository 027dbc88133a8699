"""Memory that was freed is there again without the system's help."""

import os
import platform
import subprocess
import sys

import pytest

from unperturbed.cli import main as program
from unperturbed.cli.main import main

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library is told anything")

TIMES, TENSORS, BYTES = 20, 5, 24_000_000
FAULTS = f"""
import resource, torch
from unperturbed.cli.memory import keep_freed_memory
keep_freed_memory()
def work():
    tensors = [torch.ones({BYTES // 4}) for _ in range({TENSORS})]
for _ in range(10):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
LOW = {"MALLOC_TRIM_THRESHOLD_": "1000000", "MALLOC_MMAP_THRESHOLD_": "1000000"}


def share_fetched(**environment: str) -> float:
    """Return which share of the same memory, needed again and again, the system had to give each time."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    call = [sys.executable, "-c", FAULTS]
    printed = subprocess.run(call, env=own | environment, check=True, capture_output=True, text=True).stdout
    return int(printed) * os.sysconf("SC_PAGE_SIZE") / (TIMES * TENSORS * BYTES)


@pytest.mark.long
@pytest.mark.slow
def test_freed_memory_is_kept() -> None:
    assert share_fetched() < 0.02


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("own", [
    LOW,
    {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000:glibc.malloc.trim_threshold=1000000"},
])  # fmt: skip
def test_thresholds_of_the_users_own_stand(own: dict[str, str]) -> None:
    """(Pages of 2 MiB, where the system takes them, are one fault each.)"""
    assert share_fetched(**own) > 20 * share_fetched()


def test_the_command_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[bool]()
    monkeypatch.setattr(program, "keep_freed_memory", lambda: called.append(True))
    assert main(["methods"]) == 0 and called == [True]
