"""benchmarks/gpu.py is ready for a GPU: on a processor it runs to its end, and its checks can fail."""

import json
import time
from pathlib import Path

import pytest
import torch
from benchmarks import gpu

CPU = torch.device("cpu")


@pytest.mark.long
@pytest.mark.slow
def test_the_small_run_checks_and_measures_everything(tmp_path: Path) -> None:
    report = gpu.run(CPU, gpu.SMALL, None)
    assert json.loads(json.dumps(report))["measurements"] == report["measurements"]
    assert [check["name"] for check in report["checks"]] == ["gradients", "projections", "standard"]
    assert all(check["passed"] for check in report["checks"])
    assert report["checks"][2]["values"]["cpu"] > 0
    names = ("step of AT-10", "step of SCORPIO-3", "step of LLR-2", "training for 1 s", "suite fast", "suite standard")
    assert tuple(report["measurements"]) == names
    for values in report["measurements"].values():
        assert values["seconds"] > 0 and "left out" not in values


def test_measurements_without_time_are_left_out() -> None:
    left_out = gpu.measurements(CPU, gpu.SMALL, gpu.colours(16, 0), gpu.Clock(time.monotonic() - 1))
    assert left_out and all(values == {"left out": "no time was left"} for values in left_out.values())


def test_a_wrong_projection_fails_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(gpu.check_projections(CPU).values()) == 0
    project, calls = gpu.Threat.project, []

    def wrong(self: gpu.Threat, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        calls.append(True)
        return project(self, x, z) + (0.1 if len(calls) % 2 == 0 else 0)

    monkeypatch.setattr(gpu.Threat, "project", wrong)
    found = gpu.check_projections(CPU)
    assert found["L2"] > 0.09 and found["L2 outside"] == 1
