"""Confidence and calibration, typed again, beside scikit-learn, and on networks whose calibration is known."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from torch import Tensor

from support.examined import NaNAt, all_finite, distribution, names, number, subject
from support.toys import Function, linear, uniform
from unperturbed.examinations.diagnostics.confidence import (
    BINS,
    bin_of,
    calibration_error,
    calibration_interval,
    confidence,
    loss_of,
)
from unperturbed.findings import Finding, Line
from unperturbed.statistics.per_example import average
from unperturbed.threat import Threat

LOG_P = Function(lambda x: x.log())
"""The inputs are its probabilities."""


def line(finding: Finding, name: str) -> Line:
    (found,) = (each for each in finding.lines if each.name == name)
    return found


def probabilities(n: int, seed: int = 0) -> Tensor:
    p = torch.tensor(np.random.default_rng(seed).dirichlet([1.0, 0.5, 0.3], size=n)).clamp(min=1e-6)
    return (p / p.sum(dim=1, keepdim=True)).float()


def labels(p: Tensor, seed: int = 1) -> Tensor:
    """Return labels drawn with these probabilities."""
    return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def simulated(n: int, seed: int, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, and whether each prediction is right with probability confidence^power."""
    random = np.random.default_rng(seed)
    sure = random.beta(5, 1, size=n)
    return sure, (random.random(n) < sure**power).astype(float)


def test_quantities_typed_again() -> None:
    x, y = uniform(30, 5, seed=1), torch.arange(30) % 3
    model = linear(5, 3, seed=2)
    found = confidence(subject(model, x, y, train=(x, y)))
    f = x.double().numpy() @ model.weight.detach().double().numpy().T + model.bias.detach().double().numpy()
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    own = p[np.arange(30), y.numpy()]
    truth = {
        "probability of the label": own,
        "probability of the predicted class": p.max(axis=1),
        "cross-entropy": -np.log(own),
        "entropy": -(p * np.log(p)).sum(axis=1),
    }
    for name, values in truth.items():
        for part in ("test", "train"):
            one = distribution(found, f"{name}, {part}")
            np.testing.assert_allclose(one.values, values, atol=1e-5)
            assert one.log == (name == "cross-entropy")
            assert number(found, f"{name}, {part}: mean").value == pytest.approx(values.mean(), abs=1e-5)
    right = p.argmax(axis=1) == y.numpy()
    assert number(found, "accuracy, test").value == right.mean()
    gap = number(found, "confidence minus accuracy, test")
    assert gap.value == pytest.approx(p.max(axis=1).mean() - right.mean(), abs=1e-5)
    assert all_finite(found)


def test_adversarial_values_are_those_of_the_corner_of_the_cube() -> None:
    """Two classes, f = (0, w x): PGD's point is x + eps sign(w) for label 0, x - eps sign(w) for label 1."""
    x, y = uniform(20, 5, seed=1), torch.arange(20) % 2
    w = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0])
    model = Function(lambda x: torch.stack([torch.zeros(len(x)), x @ w], dim=1))
    threat = Threat("Linf", 0.1, None)
    found = confidence(subject(model, x, y, threat=threat, classes=2))
    score = x.double() @ w.double() * (2 * y - 1) - 0.1 * 6
    values = torch.sigmoid(score).numpy()
    np.testing.assert_allclose(distribution(found, "probability of the label, adversarial").values, values, atol=1e-5)
    assert number(found, "accuracy, adversarial").value == (values > 0.5).mean()
    assert number(found, "accuracy, test").value > number(found, "accuracy, adversarial").value
    assert any("20 steps" in note and "Linf:0.1" in note for note in found.notes)


def test_the_loss_is_right_where_probabilities_round_to_one() -> None:
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0], [300.0, 0.0]])
    found = loss_of(logits, torch.zeros(3).long())
    expected = [np.exp(-40.0), 40.0, np.exp(-300.0)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    huge = confidence(
        subject(Function(lambda x: 1e4 * x), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2).long())
    )
    assert all_finite(huge) and min(distribution(huge, "cross-entropy, test").values) > 0


@pytest.mark.slow
def test_the_reliability_curve_is_scikit_learns() -> None:
    sure, right = simulated(700, seed=3, power=2)
    place = bin_of(sure)
    accuracy, mean = calibration_curve(right, sure, n_bins=BINS)
    assert [right[place == b].mean() for b in range(BINS) if (place == b).any()] == pytest.approx(accuracy.tolist())
    share = np.bincount(place, minlength=BINS)[np.bincount(place, minlength=BINS) > 0] / 700
    assert calibration_error(sure, right) == pytest.approx(float((share * abs(accuracy - mean)).sum()))

    p = probabilities(300)
    y = labels(p)
    found = confidence(subject(LOG_P, p, y, threat=Threat("Linf", 0.0)))
    most, hit = p.double().amax(1).numpy(), (p.argmax(1) == y).double().numpy()
    accuracy, mean = calibration_curve(hit, most, n_bins=BINS)
    drawn, sure_line = line(found, "reliability, test"), line(found, "mean confidence by bin, test")
    assert [value for value in drawn.y if value is not None] == pytest.approx(accuracy.tolist())
    assert [value for value in sure_line.y if value is not None] == pytest.approx(mean.tolist(), abs=1e-6)
    assert drawn.x == pytest.approx([(k + 0.5) / 15 for k in range(15)]) and drawn.low is not None
    assert [value is None for value in drawn.y] == [value is None for value in drawn.low]
    assert all(low <= value for low, value in zip(drawn.low, drawn.y, strict=True) if value is not None)  # type: ignore[operator]
    counts = [int(text) for text in drawn.about.partition("by bin: ")[2].split(", ")]
    assert sum(counts) == 300 and counts == np.bincount(bin_of(most), minlength=15).tolist()


def test_the_calibration_error_by_hand() -> None:
    """One of two right at 0.25 in one bin, and one of two at 0.95 and 1 in the last: (|1 - 0.5| + |1 - 1.95|) / 4."""
    sure, right = np.array([0.25, 0.25, 0.95, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    assert calibration_error(sure, right) == pytest.approx((abs(1 - 0.5) + abs(1 - 1.95)) / 4)
    edges = np.linspace(0, 1, BINS + 1)
    assert bin_of(edges[1:]).tolist() == list(range(15)) and bin_of(np.array([0.0])).tolist() == [0]


@pytest.mark.slow
def test_a_calibrated_network_has_an_error_near_0_and_another_has_not() -> None:
    p = probabilities(1500)
    right, wrong = (
        subject(LOG_P, p, y, threat=Threat("Linf", 0.0), batch_size=512) for y in (labels(p), labels(p.sqrt()))
    )
    found, other = confidence(right), confidence(wrong)
    error = number(found, "expected calibration error, test")
    assert error.value < 0.04 and error.low == 0 and error.n == 1500
    chance = number(found, "expected calibration error by chance, test")
    assert chance.low <= error.value <= chance.high and chance.value > 0.01  # type: ignore[operator]
    assert abs(number(found, "confidence minus accuracy, test").value) < 0.03
    off = number(other, "expected calibration error, test")
    assert off.value > 0.05 and off.low > 0.05  # type: ignore[operator]


@pytest.mark.slow
def test_the_interval_covers_the_truth_where_resampling_alone_would_not() -> None:
    """Calibrated: the truth is 0, and the error of 200 examples about 0.05. Otherwise E |c - c^2| by numbers."""
    for power, truth in ((1.0, 0.0), (3.0, None)):
        covered = 0
        for seed in range(25):
            sure, right = simulated(200, seed, power)
            if truth is None:
                many, _ = simulated(400_000, 999)
                excess = np.bincount(bin_of(many), weights=many**power - many, minlength=BINS)
                truth = float(abs(excess).sum() / len(many))
            low, high, _ = calibration_interval(sure, right, seed=0)
            covered += low <= truth <= high
        assert covered >= 21, "of 24 expected"


def test_the_interval_is_not_below_a_gap_that_is_surely_there() -> None:
    """With 60 examples chance explains an error of 0.19 in 15 bins, but not a mean that is 0.19 off."""
    random = np.random.default_rng(1)
    sure = random.uniform(0.3, 0.8, 60)
    right = (random.random(60) < sure + 0.19).astype(float)
    gap = average("", (sure - right).tolist())[0]
    low, high, by_chance = calibration_interval(sure, right, seed=0)
    value = calibration_error(sure, right)
    assert value < np.quantile(by_chance, 0.975), "the case in question"
    assert gap.high is not None and gap.high < 0 and low == pytest.approx(-gap.high) and low <= value <= high


def test_intervals_are_the_same_again() -> None:
    sure, right = simulated(100, seed=0)
    first, again, other = (calibration_interval(sure, right, seed) for seed in (3, 3, 4))
    assert first[:2] == again[:2] and first[1] != other[1]


def test_what_is_not_finite_is_counted_apart() -> None:
    x, y = uniform(20, 6, seed=1), torch.arange(20) % 3
    model = linear(6, 3)
    right = model(x).argmax(1) == y
    hit = int(right.nonzero()[0])
    found = confidence(subject(NaNAt(model, x[hit]), x, y))
    for name in ("probability of the label", "probability of the predicted class", "cross-entropy", "entropy"):
        assert distribution(found, f"{name}, test").missing == 1
    accuracy = number(found, "accuracy, test")
    assert accuracy.n == 20 and accuracy.value == (int(right.sum()) - 1) / 20
    assert accuracy.high == number(confidence(subject(model, x, y)), "accuracy, test").high
    assert number(found, "expected calibration error, test").n == 19
    assert any("1 of 20" in note for note in found.notes)
    nothing = confidence(subject(Function(lambda x: x[:, :3] * torch.nan), x, y))
    assert "No logits are finite" in nothing.summary and all_finite(nothing)


def test_a_tie_is_not_correct() -> None:
    x = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    found = confidence(subject(Function(lambda x: x), x, torch.zeros(2).long(), threat=Threat("Linf", 0.0), classes=2))
    assert number(found, "accuracy, test").value == 0.5
    assert distribution(found, "probability of the predicted class, test").values[0] == pytest.approx(0.5)
    assert distribution(found, "entropy, test").values[0] == pytest.approx(np.log(2))


def test_without_training_examples_the_rest_is_said() -> None:
    found = confidence(subject(linear(6, 3), uniform(10, 6), torch.arange(10) % 3))
    assert any("no training examples" in note for note in found.notes)
    assert not any("train" in name for name in names(found)) and any("adversarial" in name for name in names(found))
