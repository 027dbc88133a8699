"""The simulation of many workers: its clock, its files, and its publications."""

from pathlib import Path

import pytest
from benchmarks import scale

from unperturbed.evaluation import measurement


def test_workers_wait_for_their_units_and_for_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "BLOCK", measurement.BLOCK)  # the simulation changes it
    result = scale.simulate(30, 10, 600.0, tmp_path / "run")
    assert result["ideal"] == pytest.approx(1800) and result["makespan"] > result["ideal"]
    assert 0 < result["driver's share"] < 0.01
    assert len(list((tmp_path / "run").rglob("part-*.json"))) == 30
    assert result["publication of 30 units"]["all, s"] > 0
