"""Warnings of an eps that spans the box, or does not suit features of different ranges."""

import pytest
import torch
from torch import nn

from unperturbed import Recipe, evaluate, train
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data
from unperturbed.evaluation.reach import reach_warnings
from unperturbed.methods.fgsm import FGSM
from unperturbed.threat import Threat

N = 64
WIDTHS = torch.tensor([1.0, 50_000.0])
X = torch.linspace(0, 1, N)[:, None] * WIDTHS
Y = (torch.arange(N) >= N // 2).long()
BOUNDS = (torch.zeros(2), WIDTHS)


def test_a_radius_that_spans_the_box_is_named_with_the_likely_meaning() -> None:
    (text,) = reach_warnings(Threat("Linf", 8), as_split((torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))))
    assert "the box only 1 wide" in text and "8/255" in text


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_one_radius_for_features_of_unlike_ranges_is_named_with_its_share_of_both(norm: str) -> None:
    (text,) = reach_warnings(Threat(norm, 0.5, BOUNDS), as_split((X, Y)))  # type: ignore[arg-type]
    assert "eps is 0.5" in text
    assert "50% of the range of feature 0 (0 to 1)" in text and "0.001% of the range of feature 1" in text


def test_features_of_one_scale_pass() -> None:
    assert reach_warnings(Threat("Linf", 0.1), as_split((X / WIDTHS, Y))) == []
    assert reach_warnings(Threat("Linf", 0, BOUNDS), as_split((X, Y))) == []


@pytest.mark.slow
def test_training_and_evaluation_both_warn() -> None:
    threat, model = Threat("Linf", 0.5, BOUNDS), nn.Linear(2, 2)
    outcome = evaluate(model, (X, Y), threat, suite="apgd-ce")
    data = Data("raw", as_split((X, Y)), None, ("a", "b"), BOUNDS)
    run = train(model, data, threat, FGSM(), Recipe(epochs=1, batch_size=32))
    for warnings in (outcome.warnings, run.warnings):
        assert any("eps is 0.5" in text and "feature 1" in text for text in warnings), warnings
