"""Accuracy under corruptions, on networks whose answers are known, and its resumption."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from support.toys import Function
from unperturbed.data.corruptions import CORRUPTIONS
from unperturbed.data.split import ArraySplit, Data
from unperturbed.errors import InputError
from unperturbed.evaluation import corruptions
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.corruptions import corruption_accuracy
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Inputs

N = 10
LEVELS = np.linspace(100, 145, N).astype(np.uint8)


def data() -> ArraySplit:
    """Return grey images of one level each; class 1 is above the middle."""
    images = np.tile(LEVELS[:, None, None, None], (1, 1, 8, 8))
    return ArraySplit(torch.from_numpy(images), torch.from_numpy((LEVELS > 122).astype(np.int64)))


def brightness_of(x: Inputs) -> torch.Tensor:
    mean = x.mean(dim=(1, 2, 3))
    return torch.stack([torch.zeros_like(mean), 50 * (mean - 122.5 / 255)], dim=1)


@pytest.mark.slow
def test_accuracies_are_those_of_a_closed_form() -> None:
    """A network sees the mean of an image, which is rounded down to 8 bits; contrast leaves it as it is."""
    found = corruption_accuracy(Function(brightness_of), data())
    for place, amount in enumerate((0.05, 0.1, 0.15, 0.2, 0.3)):
        right = sum(bool((int(level + 255 * amount + 1e-9) > 122) == (level > 122)) for level in LEVELS)
        assert found.accuracy["brightness"][place] == wilson(right, N)
        assert found.accuracy["contrast"][place].value == found.clean_accuracy.value == 1.0
    assert set(found.accuracy) == set(CORRUPTIONS) and found.threat == "none"
    shares = [share.value for row in found.accuracy.values() for share in row]
    assert found.mean_accuracy.value == pytest.approx(np.mean(shares)) and len(shares) == 70
    assert found.mean_accuracy.low < found.mean_accuracy.value < found.mean_accuracy.high
    assert "no attack" in str(found) and "robust" not in json.dumps(found.json())


def test_logits_that_are_not_finite_are_never_correct() -> None:
    def sometimes(x: Inputs) -> torch.Tensor:
        logits = brightness_of(x)
        return torch.where(x.mean(dim=(1, 2, 3))[:, None] > 0.7, torch.nan, logits)

    found = corruption_accuracy(Function(sometimes), data())
    brightest = found.accuracy["brightness"][4]  # every image with a level above 0.4 gets above 0.7
    lost = sum(level / 255 + 0.3 > 0.7 for level in LEVELS)
    assert (
        lost > 0 and brightest.value <= (N - lost) / N and brightest.high > wilson(round(brightest.value * N), N).high
    )
    assert any("no finite logits" in text for text in found.warnings)


@pytest.mark.slow
def test_an_interrupted_measurement_resumes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = corruption_accuracy(Function(brightness_of), data())
    calls = 0
    margins_at = corruptions.margins_at

    def interrupted(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 34:
            raise KeyboardInterrupt
        return margins_at(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(corruptions, "margins_at", interrupted)
    model = Function(brightness_of)
    with pytest.raises(KeyboardInterrupt):
        corruption_accuracy(model, data(), out=tmp_path)
    resumed = corruption_accuracy(model, data(), out=tmp_path)
    assert resumed.examples == whole.examples and resumed.accuracy == whole.accuracy
    assert calls < 34 + 1 + 70  # not from the beginning
    with pytest.raises(InputError, match="--overwrite|overwrite"):
        corruption_accuracy(model, data(), out=tmp_path, seed=1)


def test_data_outside_the_unit_interval_are_refused() -> None:
    split = data()
    with pytest.raises(InputError, match=r"bounds of the data are \(-1.0, 1.0\)"):
        corruption_accuracy(Function(brightness_of), Data("d", split, split, ("0", "1"), (-1.0, 1.0)))


def test_corruptions_are_no_suite_of_attacks() -> None:
    with pytest.raises(InputError, match="no suite of attacks.*corruption_accuracy"):
        evaluate(Function(brightness_of), data(), Threat("Linf", 0.1), "corruptions")
