"""Etmann's alignment is the distance to the decision boundary where that is a plane through 0."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import unperturbed as un
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.data.split import Data
from unperturbed.evaluation.checked_model import measured_split
from unperturbed.examinations.explain import explain
from unperturbed.examinations.explain_runs import stored_curves
from unperturbed.examinations.several import Candidate
from unperturbed.types import Norm

DUAL = {"Linf": 1, "L2": 2, "L1": float("inf")}
FIRST = Suite("first", (FAB(steps=20),), "upper bounds")


def linear() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Return a linear network of two classes without bias, examples that it classifies correctly, and the normal."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, 5, generator=draw).double()  # data are kept in float32
    layer = nn.Linear(5, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 5, generator=draw, dtype=torch.float64))
    w = (layer.weight[0] - layer.weight[1]).detach()
    return layer, x, (x @ w < 0).long(), w


def numbers(explained: object) -> dict[str, float]:
    finding = explained.explanations["distance"].finding  # type: ignore[attr-defined]
    return {number.name: number.value for number in finding.numbers}


@pytest.mark.slow
def test_distance_and_alignment_are_those_of_the_plane() -> None:
    model, x, y, w = linear()
    explained = explain(model, (x, y), un.Threat("L2", 0.5, None), explanations=["distance"], examples=None)
    expected = float((x @ w).abs().mean() / w.norm())
    found = numbers(explained)
    assert found["Etmann alignment of these examples"] == pytest.approx(expected, rel=1e-12)
    assert found["L2 distance to the nearest misclassified input"] == pytest.approx(expected, rel=1e-3)
    arrays = explained.explanations["distance"].arrays
    torch.testing.assert_close(arrays["distance"], (x @ w).abs() / w.norm(), rtol=1e-3, atol=0)
    assert (arrays["distance"] >= arrays["etmann_alignment"] * (1 - 1e-9)).all(), "an upper bound"


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L1"])
def test_a_curve_is_compared_in_its_own_norm(norm: Norm) -> None:
    model, x, y, w = linear()
    curve = un.minimum_norm(model, (x, y), un.Threat(norm, 1.0, None), FIRST, radii=[1.0])
    settings = {"explanations": ["distance"], "examples": 8, "curves": [curve]}
    explained = explain(model, (x, y), un.Threat("L2", 0.5, None), **settings)  # type: ignore[arg-type]
    length = (x[:8] @ w).abs() / w.norm(DUAL[norm])
    arrays, found = explained.explanations["distance"].arrays, numbers(explained)
    torch.testing.assert_close(arrays[f"curve_{norm}_alignment"], length)
    torch.testing.assert_close(arrays[f"curve_{norm}_distance"], length, rtol=1e-2, atol=1e-6)
    assert arrays[f"curve_{norm}_ids"].tolist() == list(range(8))
    assert abs(found[f"Etmann alignment minus {norm} distance of the curve"]) < 1e-2 * float(length.max())


def test_the_curve_of_a_run_is_found_and_one_of_other_weights_is_not(tmp_path: Path) -> None:
    model, x, y, _ = linear()
    test, threat = measured_split((x, y)), un.Threat("Linf", 1.0, None)
    un.minimum_norm(model, test, threat, FIRST, radii=[1.0], out=tmp_path / "evaluation")
    data = Data("plane", test, test, ("a", "b"), None)
    candidate = Candidate(tmp_path, model, data, test, None, threat, None)
    curves, notes = stored_curves(candidate)
    assert len(curves) == 1 and notes == ()
    assert stored_curves(replace(candidate, model=nn.Linear(5, 2).double())) == ((), ())
    (tmp_path / "evaluation/curve-Linf.json").write_text("{")
    curves, notes = stored_curves(candidate)
    assert curves == () and "curve-Linf.json" in notes[0]
