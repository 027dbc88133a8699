"""A command killed with SIGKILL and run again ends in the bits of an undisturbed one; the whole is in benchmarks."""

from pathlib import Path

import pytest
from benchmarks import kills


@pytest.mark.long
@pytest.mark.slow
def test_eight_kills_lose_nothing(tmp_path: Path) -> None:
    results = kills.run(tmp_path / "kills", 8)
    assert [row["differing"] for row in results] == [[]] * 8
