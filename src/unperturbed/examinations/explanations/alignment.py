"""The alignment of input gradients with images and class means, and the smoothness and sparseness of the maps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unperturbed.curvature.products import input_gradient
from unperturbed.examinations.explanations.ascents import log_probability
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import input_gradient as margin_gradient
from unperturbed.examinations.explanations.maps import natural_maps
from unperturbed.examinations.explanations.scores import cosine, etmann_alignment, sparseness, total_variation
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.statistics.per_example import average, distribution
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

TARGETS = 3
"""The largest number of classes in the perceptual alignment of an example."""


def gradient_scores(gradient: Inputs, x: Inputs) -> dict[str, PerExample]:
    """Return the scores of input gradients by name."""
    return {
        "cosine of gradient and image": cosine(gradient, x).abs(),
        "Etmann alignment": etmann_alignment(gradient, x),
        "total variation of the gradient": total_variation(gradient),
        "sparseness of the gradient": sparseness(gradient),
    }


def perceptual_alignment(
    model: Model, batch: Batch, means: Tensor, classes: int, batch_size: int = 128
) -> tuple[PerExample, PerExample]:
    """Return the perceptually-aligned-gradient score of each example, and that of the other-class baseline.

    The mean over the next three classes t of cos(grad_x log p_t, r_t - x), with r_t the mean training example of class
    t (Ganz et al. 2023, https://arxiv.org/abs/2207.11378, with class means as the representatives). In the baseline,
    the mean of a class other than t and the label replaces r_t.
    """
    scores, baselines = [], []
    count = min(TARGETS, classes - 1)
    for rows in torch.split(torch.arange(len(batch.x), device=batch.x.device), batch_size):
        x, y = batch.x[rows], batch.y[rows]
        score, baseline = x.new_zeros(len(x)), x.new_zeros(len(x))
        for k in range(1, count + 1):
            target = (y + k) % classes
            other_class = (y + k + 1) % classes
            other_class = torch.where(other_class == y, (other_class + 1) % classes, other_class)
            gradient = _log_gradient(model, x, target)
            score += cosine(gradient, means[target] - x) / count
            baseline += cosine(gradient, means[other_class] - x) / count
        scores.append(score)
        baselines.append(baseline)
    return torch.cat(scores), torch.cat(baselines)


def class_means(batch: Batch, classes: int) -> Inputs:
    """Return the mean example of each class; NaN for a class without examples."""
    return torch.stack([batch.x[batch.y == k].mean(dim=0) for k in range(classes)])


def alignment(subject: Subject) -> Explanation:
    """Alignment: of input gradients with the image and with class means; smoothness and sparseness of the maps.

    Means over the test examples with 95% intervals; on natural and on adversarial inputs.
    """
    test, numbers, notes = subject.test, list[Number](), list[str]()
    maps = natural_maps(subject)
    adversarial = subject.worst_test
    attacked = torch.cat(
        [
            margin_gradient(subject.classifier, z, y)
            for z, y in zip(
                torch.split(adversarial, subject.batch_size), torch.split(test.y, subject.batch_size), strict=True
            )
        ]
    )
    natural = gradient_scores(maps["gradient"], test.x)
    numbers += _averages(natural, notes)
    under = {f"{name}, under attack": values for name, values in gradient_scores(attacked, adversarial).items()}
    numbers += _averages(under, notes)
    for name in ("integrated gradients", "SmoothGrad", "occlusion"):
        scores = {
            f"total variation, {name}": total_variation(maps[name]),
            f"sparseness, {name}": sparseness(maps[name]),
        }
        numbers += _averages(scores, notes)
    distributions = [distribution(name, values, test.ids) for name, values in natural.items()]
    if subject.train is None or subject.classes < 3:
        notes.append("Perceptual alignment needs training examples and at least three classes: not measured.")
    else:
        means = class_means(subject.train, subject.classes)
        score, baseline = perceptual_alignment(subject.classifier, test, means, subject.classes, subject.batch_size)
        by_name = {
            "perceptual alignment": score,
            "perceptual alignment, other-class baseline": baseline,
            "perceptual alignment above its baseline": score - baseline,
        }
        numbers += _averages(by_name, notes)
        distributions.append(distribution("perceptual alignment", score, test.ids))
    summary = f"Input gradients of the margin on {len(test.x)} test examples, clean and within {subject.threat}."
    return Explanation(Finding("Alignment", summary, tuple(numbers), tuple(distributions), notes=tuple(notes)))


def _averages(scores: Mapping[str, PerExample], notes: list[str]) -> list[Number]:
    """Return the mean of each score over its finite values, with notes on the others."""
    numbers = list[Number]()
    for name, values in scores.items():
        finite = values[values.isfinite()]
        numbers += average(name, finite.tolist())
        if len(finite) < len(values):
            notes.append(
                f"{name}: {len(values) - len(finite)} of {len(values)} examples left out (a map of 0 or no class)."
            )
    return numbers


def _log_gradient(model: Model, x: Inputs, target: Labels) -> Inputs:
    with as_reported(x.device), under_attack(model):
        return input_gradient(model, x, lambda logits: log_probability(logits, target))[1]
