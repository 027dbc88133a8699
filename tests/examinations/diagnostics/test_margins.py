"""Margins of networks whose logits are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.examined import NaNAt, all_finite, distribution, names, number, subject
from support.toys import Function, linear, mlp, uniform
from unperturbed.examinations.diagnostics.margins import confidence_margin, margins, output_margin


def typed_again(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return min (f_y - f_j) / sqrt 2 and p_y - max p_j, example by example."""
    outputs, confidences = [], []
    for f, label in zip(logits, y, strict=True):
        others = [j for j in range(len(f)) if j != label]
        p = np.exp(f - f.max()) / np.exp(f - f.max()).sum()
        outputs.append(min(f[label] - f[j] for j in others) / math.sqrt(2))
        confidences.append(p[label] - max(p[j] for j in others))
    return np.array(outputs), np.array(confidences)


def layers_again(model: nn.Sequential, x: Tensor) -> np.ndarray:
    first, second = (layer for layer in model if isinstance(layer, nn.Linear))
    w, b, v, c = (each.detach().double().numpy() for each in (first.weight, first.bias, second.weight, second.bias))
    return np.asarray(np.maximum(x.double().numpy() @ w.T + b, 0) @ v.T + c)


def test_margins_of_linear_and_two_layer_networks() -> None:
    x, y = uniform(40, 6, seed=1), torch.arange(40) % 3
    flat, deep = linear(6, 3, seed=2), mlp(6, 3, seed=3)
    w, b = flat.weight.detach().double().numpy(), flat.bias.detach().double().numpy()
    for model, logits in ((flat, x.double().numpy() @ w.T + b), (deep, layers_again(deep, x))):
        found = margins(subject(model, x, y, train=(x.flip(0), y.flip(0))))
        output, confidence = typed_again(logits, y.numpy())
        for name, truth in (("output margin", output), ("confidence margin", confidence)):
            for part, values in (("test", truth), ("train", truth[::-1])):
                one = distribution(found, f"{name}, {part}")
                np.testing.assert_allclose(one.values, values, atol=1e-5)
                assert one.ids == tuple(range(0 if part == "test" else 1000, 40 if part == "test" else 1040))
                assert number(found, f"{name}, {part}: mean").value == pytest.approx(values.mean(), abs=1e-5)
                assert number(found, f"{name}, {part}: standard deviation").value == pytest.approx(
                    values.std(), abs=1e-5
                )
                quantile = number(found, f"{name}, {part}: 5% quantile")
                assert quantile.value == pytest.approx(np.quantile(values, 0.05), abs=1e-5)
                right = number(found, f"{name}, {part}, correct: median")
                assert right.value == pytest.approx(np.median(values[values > 0]), abs=1e-5)
                assert right.n == (values > 0).sum()
        near = number(found, "confidence margin, test: share with |margin| below 0.1")
        assert (near.value, near.n, near.unit) == (pytest.approx((abs(confidence) < 0.1).mean()), 40, "%")
        assert number(found, "output margin: train minus test").value == pytest.approx(0)
        assert all_finite(found)


def test_the_output_margin_is_the_distance_of_the_nearest_tie() -> None:
    """The nearest point of {f_y = f_j} is f moved by half their difference in both: no tie lies closer."""
    f = torch.randn(400, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f = f[f.argmax(1) == 0]
    y = torch.zeros(len(f)).long()
    score = output_margin(f, y)
    assert len(f) > 50 and bool((score > 0).all())
    rival = f[:, 1:].argmax(1) + 1
    gap = (f[:, 0] - f.gather(1, rival[:, None])[:, 0]) / 2
    tied = f.clone()
    tied[:, 0] -= gap
    tied[torch.arange(len(f)), rival] += gap
    torch.testing.assert_close((tied - f).norm(dim=1), score)
    torch.testing.assert_close(output_margin(tied, y), torch.zeros(len(f)).double(), atol=1e-12, rtol=0)
    steps = torch.randn(len(f), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = f + 0.999 * score[:, None] * steps / steps.norm(dim=1, keepdim=True)
    assert bool((output_margin(moved, y) > 0).all())


def test_what_is_not_finite_is_counted_apart() -> None:
    x, y = uniform(10, 6, seed=1), torch.arange(10) % 3
    model = linear(6, 3)
    whole, found = margins(subject(model, x, y)), margins(subject(NaNAt(model, x[4]), x, y))
    for name in ("output margin, test", "confidence margin, test"):
        before, after = distribution(whole, name), distribution(found, name)
        assert after.missing == 1 and before.missing == 0 and 4 not in after.ids and len(after.ids) == 9
        assert set(after.values) <= set(before.values)
        assert any(note.startswith(f"{name}: 1 of 10") for note in found.notes)
    nothing = margins(subject(Function(lambda x: x[:, :3] * torch.nan), x, y))
    assert "no margin" in nothing.summary and distribution(nothing, "output margin, test").missing == 10
    assert all_finite(nothing)


def test_ties_and_two_classes() -> None:
    """f = (x_0, x_1) and labels 0: o = (x_0 - x_1) / sqrt 2; at a tie both margins are 0, which is not correct."""
    x = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    found = margins(subject(Function(lambda x: x), x, torch.zeros(3).long(), classes=2))
    root = math.sqrt(0.5)
    assert distribution(found, "output margin, test").values == pytest.approx((root, 0.0, -root))
    sure = math.tanh(0.5)
    assert distribution(found, "confidence margin, test").values == pytest.approx((sure, 0.0, -sure))
    assert number(found, "output margin, test, correct: mean").n == 1
    assert number(found, "confidence margin, test: share with |margin| below 0.1").value == pytest.approx(1 / 3)


def test_saturation_is_told_and_leaves_the_output_margin() -> None:
    logits, y = torch.tensor([[2000.0, 0.0], [3000.0, 0.0]]), torch.zeros(2).long()
    assert confidence_margin(logits, y).tolist() == [1.0, 1.0]
    assert output_margin(logits, y).tolist() == pytest.approx([2000 / math.sqrt(2), 3000 / math.sqrt(2)])
    found = margins(subject(Function(lambda x: 1000 * x), torch.tensor([[2.0, 0.0], [3.0, 0.0]]), y, classes=2))
    assert any("saturated" in note for note in found.notes)


def test_without_training_examples_the_rest_is_said() -> None:
    x, y = uniform(10, 6, seed=1), torch.arange(10) % 3
    found = margins(subject(linear(6, 3), x, y))
    assert any("no training examples" in note for note in found.notes)
    assert not any("train" in name for name in names(found))
    assert "median output margin" in found.summary
