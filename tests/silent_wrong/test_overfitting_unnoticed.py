"""Catastrophic overfitting of single-step training and robust overfitting are detected during training (S25)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from support.shares import in_ci
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.data.named.digits import load as load_digits
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.methods.at import AT
from unperturbed.methods.fgsm import FGSM
from unperturbed.threat import Threat
from unperturbed.training.alarm import Probe, recognise
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.trained import Trained

HEALTHY = Probe(clean=0.95, noise=0.94, one_step=0.7, many_steps=0.55, robust_loss=1.0, n=512)


def recognised(probes: Sequence[Probe], losses: Sequence[float] | None = None) -> str:
    alarm = recognise(probes, losses or [1.0 / (k + 1) for k in range(len(probes))])
    assert alarm is None or alarm.too_weak == alarm.text.startswith("Catastrophic"), "more steps help there alone"
    return "nothing" if alarm is None else alarm.text


@pytest.mark.parametrize(
    ("clean", "one_step", "many_steps", "expected"),
    [
        (0.95, 0.90, 0.00, "Catastrophic overfitting: 90% resist one step, but only 0% resist ten"),
        (0.80, 0.85, 0.10, "Catastrophic overfitting: 85%"),  # better under attack than without: label leaking
        (0.95, 0.70, 0.55, "nothing"),  # as adversarial training goes
        (0.90, 0.00, 0.00, "nothing"),  # no robustness at all is not a collapse
        (0.90, 0.20, 0.02, "nothing"),  # nor is the beginning of training
        (0.10, 0.10, 0.10, "nothing"),  # nor is one and the same answer to everything
    ],
)
def test_a_collapse_is_one_step_resisted_and_ten_not_s25(
    clean: float, one_step: float, many_steps: float, expected: str
) -> None:
    now = replace(HEALTHY, clean=clean, one_step=one_step, many_steps=many_steps)
    assert recognised([now]).startswith(expected)
    assert recognised([HEALTHY, HEALTHY, now]).startswith(expected)


def test_a_collapse_that_is_over_is_over_s25() -> None:
    collapsed = replace(HEALTHY, one_step=0.9, many_steps=0.0)
    assert recognised([collapsed, HEALTHY]) == "nothing"


def falling(*robust: float, loss_rises: bool = True) -> list[Probe]:
    return [
        replace(HEALTHY, many_steps=share, robust_loss=1.0 + 0.1 * k * loss_rises) for k, share in enumerate(robust)
    ]


@pytest.mark.parametrize(
    ("probes", "losses", "expected"),
    [
        (falling(0.3, 0.6, 0.55, 0.5, 0.45), None, "Robust overfitting: 45% resist ten steps, down from 60% 3 epochs"),
        (falling(0.3, 0.6, 0.55, 0.45), None, "nothing"),  # two epochs only
        (falling(0.3, 0.6, 0.58, 0.57, 0.56), None, "nothing"),  # within two standard errors
        (falling(0.3, 0.6, 0.55, 0.5, 0.45, loss_rises=False), None, "nothing"),
        (falling(0.3, 0.6, 0.55, 0.5, 0.45), [3.0, 1.0, 1.0, 1.0, 1.1], "nothing"),  # training got worse, too
        (falling(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), None, "nothing"),
    ],
)
def test_robust_overfitting_is_a_significant_fall_while_training_goes_on_s25(
    probes: list[Probe], losses: list[float] | None, expected: str
) -> None:
    assert recognised(probes, losses).startswith(expected)


def test_what_counts_as_a_fall_depends_on_how_many_examples_were_looked_at_s25() -> None:
    probes = falling(0.6, 0.55, 0.55, 0.54)
    assert recognised(probes) == "nothing"
    assert recognised([replace(probe, n=5000) for probe in probes]).startswith("Robust overfitting")


def probes_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.slow
def test_a_forced_collapse_is_recognised_within_an_epoch_s25(tmp_path: Path) -> None:
    """FGSM at eps 0.3 on enlarged digits learns to mask its one step: in the end nearly all resist it, and none ten."""
    digits = load_digits().train
    every = torch.arange(len(digits))
    x = interpolate(digits.inputs(every), scale_factor=3.0, mode="bilinear").clamp(0, 1)
    torch.manual_seed(0)
    model, threat = SmallCNN((1, 24, 24)), Threat("Linf", 0.3)
    recipe = Recipe(epochs=20, optimiser="adam", lr=0.005, schedule="constant", precision="32")
    trained = train(model, (x, digits.labels), threat, FGSM(), recipe, out=tmp_path / "run")
    probes = probes_of(tmp_path / "run")
    collapsed = [
        probe["epoch"]
        for probe in probes
        if probe["probe/one_step"] > 0.65 * probe["probe/clean"] and probe["probe/many_steps"] < 0.1
    ]
    assert collapsed and probes[-1]["probe/one_step"] > 0.5
    alarms = [int(text.split()[1].rstrip(":")) for text in trained.warnings if "Catastrophic overfitting" in text]
    assert any(collapsed[0] <= alarm <= collapsed[0] + 1 for alarm in alarms)
    honest = evaluate(trained.model, (x[:100], digits.labels[:100]), threat, "pgd")
    assert honest.robust_accuracy.value < 0.1


def pgd_run(seed: int, eps: float) -> Trained:
    torch.manual_seed(seed)
    recipe = Recipe(epochs=8, seed=seed)
    return train(SmallCNN((1, 8, 8)), load_digits(), Threat("Linf", eps), AT(), recipe)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("seed", "eps"), in_ci(1, [(0, 0.1), (3, 0.2), (1, 0.1), (2, 0.1), (4, 0.2)]))
def test_adversarial_training_raises_no_false_alarm_s25(seed: int, eps: float) -> None:
    assert pgd_run(seed, eps).warnings == ()
