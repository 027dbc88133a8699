"""The setting of this processor under which matrix products round every row in the same way. Imports no torch.

`python -P processor.py` prints that setting, for a Makefile or a shell.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTING = "MKL_CBWR"
_AVX2 = {"avx2", "fma"}
_AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def strict_branch(features: set[str]) -> str | None:
    """Return the value of MKL_CBWR for a processor with these features; None if MKL has no strict branch for it.

    Without STRICT, MKL may round a row of a matrix product by its place in the batch.
    """
    if not _AVX2 <= features:
        return None
    return "AVX512,STRICT" if _AVX512 <= features else "AVX2,STRICT"


def processor_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's features by their names in Linux; empty if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # another system
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def round_rows_alike() -> None:
    """Set MKL_CBWR for this process, unless it is set or torch is loaded already: MKL reads it once."""
    if "torch" not in sys.modules:
        os.environ.update(_needed_setting())


@contextmanager
def workers_round_rows_alike() -> Iterator[None]:
    """Set MKL_CBWR in the environment of processes that start within this block, unless it is set."""
    added = _needed_setting()
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _needed_setting() -> dict[str, str]:
    branch = strict_branch(processor_features())
    return {SETTING: branch} if branch is not None and SETTING not in os.environ else {}


if __name__ == "__main__":
    print(strict_branch(processor_features()) or "")
