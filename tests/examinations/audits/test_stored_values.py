"""Values in the folder of an audit, of other types than it writes: their hashes are right, the folder a stranger's."""

from pathlib import Path
from typing import Any

import pytest

from unperturbed.examinations.audit import _checks_of, _planned, _strength_of
from unperturbed.examinations.audited import CheckResult, Grid
from unperturbed.examinations.budget import Plan
from unperturbed.findings import Number
from unperturbed.runs.kept import Kept

PLAN = Plan(examples=12, seconds=3.0, strength=0.5, batch_size=8, budget=60.0, rate=0.001, suite=100.0)
SURFACE = Grid((-1.0, 1.0), ((0.0, 1.0), (2.0, 3.0)), "a loss")
RESULT = CheckResult(
    "unstable", "Is it?", "fail", "it is", "it is not", ("random",), "layer", (Number("share", 0.5, 12),), 1.5,
    broke=(3, 4), surface=SURFACE,
)  # fmt: skip


def test_plain_values_are_read_as_they_were_written() -> None:
    assert Plan.of(PLAN.json()) == PLAN
    assert CheckResult.of(RESULT.json()) == RESULT
    assert _checks_of({"checks": {"unstable": RESULT.json()}}) == {"unstable": RESULT}


@pytest.mark.parametrize(
    "edit",
    [{"examples": "all"}, {"examples": 0}, {"batch_size": -1}, {"strength": None}, {"rate": -1.0}, {"more": 1}, [1], 3],
)
def test_a_plan_that_does_not_fit_is_made_again(edit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = PLAN.json() | edit if isinstance(edit, dict) else edit
    Kept(tmp_path / "plan.json", {"seed": 0}).write(plan=content)
    assert _planned(tmp_path, {"seed": 0}, lambda: PLAN) == PLAN
    assert "plan.json holds values that do not fit" in caplog.text
    caplog.clear()
    assert _planned(tmp_path, {"seed": 0}, lambda: Plan(1, 1.0, 1.0, 1, 1.0, 1.0, 1.0)) == PLAN, "it was stored"
    assert not caplog.text


@pytest.mark.parametrize(
    "edit",
    [
        {"broke": ["a"]},
        {"verdict": "good"},
        {"seconds": "long"},
        {"numbers": [{"name": "share", "value": None, "n": 1}]},
        {"surface": {"along": [0.0, 1.0], "values": [[1.0, 2.0]], "caption": ""}},
        {"surface": 7},
    ],
)
def test_a_check_whose_result_does_not_fit_runs_again(edit: dict[str, Any]) -> None:
    with pytest.raises((TypeError, LookupError)):
        CheckResult.of(RESULT.json() | edit)
    stored = {"checks": {"unstable": RESULT.json() | edit, "other": 3, "whole": RESULT.json()}}
    assert _checks_of(stored) == {"whole": RESULT}


@pytest.mark.parametrize("strength", ["x", 40.0, 0, None, [0.5]])
def test_a_strength_that_does_not_fit_is_chosen_again(strength: Any, tmp_path: Path) -> None:
    kept = Kept(tmp_path / "strength.json", {"seed": 0})
    kept.write(strength=strength)
    assert kept.read_as(_strength_of) is None
    kept.write(strength=0.25)
    assert kept.read_as(_strength_of) == 0.25
