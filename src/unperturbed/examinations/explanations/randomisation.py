"""Cascading weight randomisation: scores that do not depend on what the network has learnt are meaningless."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from unperturbed.examinations.explanations.alignment import class_means, gradient_scores, perceptual_alignment
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import (
    gradient_times_input,
    input_gradient,
    integrated_gradients,
    occlusion,
    smooth_grad,
)
from unperturbed.examinations.explanations.scores import entropy, rank_correlation, sparseness, total_variation
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Line, Number
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

EXAMPLES = 100
"""The largest number of examples."""
CASCADED = ("gradient", "gradient x input", "SmoothGrad")
"""The maps that are compared after every layer; the others, of many passes, only with all layers randomised."""
DEPENDENT = 0.5
"""A rank correlation with the map of random weights above this: the map does not depend on the weights."""
Explains = Callable[[Model, Inputs, Labels], Inputs]


def learnt_layers(model: nn.Module) -> list[nn.Module]:
    """Return the modules with weights, in reverse order of definition, from the output."""
    return [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None][::-1]


@contextmanager
def shuffled_weights(layers: Sequence[nn.Module], seed: int) -> Iterator[None]:
    """Permute the entries of each weight of these layers at random in this block, and restore them afterwards.

    A permutation keeps the distribution of a layer's weights, and destroys the learnt function.
    """
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False)]
    before = [weight.detach().clone() for weight in weights]
    draw = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight in weights:
                order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def similarities(model: nn.Module, explain: Explains, x: Inputs, y: Labels, seed: int = 0) -> list[PerExample]:
    """Return the rank correlation of each example's map with that after 1, 2, ... layers are randomised.

    From the output towards the input (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292). A constant explanation,
    such as an edge detector, has correlations of 1. NaN if a map is constant.
    """
    trained, layers = explain(model, x, y), learnt_layers(model)
    correlations = []
    for count in range(1, len(layers) + 1):
        with shuffled_weights(layers[:count], seed):
            correlations.append(rank_correlation(trained, explain(model, x, y)))
    return correlations


def final_similarity(model: nn.Module, explain: Explains, x: Inputs, y: Labels, seed: int = 0) -> PerExample:
    """Return the last of `similarities`, with all layers randomised."""
    trained = explain(model, x, y)
    with shuffled_weights(learnt_layers(model), seed):
        return rank_correlation(trained, explain(model, x, y))


def complexity_gain(model: nn.Module, explain: Explains, x: Inputs, y: Labels, seed: int = 0) -> PerExample:
    """Return eMPRT of each example: (H(random) - H(trained)) / H(trained), H the entropy of the map's histogram.

    Hedström et al. 2024, https://arxiv.org/abs/2401.06465. Positive if the map of the trained network is simpler than
    that of random weights; 0 for an explanation independent of the weights.
    """
    trained = entropy(explain(model, x, y))
    with shuffled_weights(learnt_layers(model), seed):
        return (entropy(explain(model, x, y)) - trained) / trained


def survivors(trained: Mapping[str, PerExample], random: Mapping[str, PerExample]) -> dict[str, tuple[Number, bool]]:
    """Return for each score the mean paired difference, trained - random weights, and whether it survives.

    It survives if the 95% interval of the difference contains 0; the score is then meaningless for this network. An
    alignment also survives if that of random weights is higher.
    """
    differences = {}
    for name, values in trained.items():
        gained = (values - random[name]).double()
        gained = gained[gained.isfinite()]
        numbers = average(f"{name}: trained minus random weights", gained.tolist())
        if not numbers:
            continue
        number = numbers[0]
        low, high = (number.value if end is None else end for end in (number.low, number.high))
        aligned = "align" in name or "cosine" in name
        differences[name] = number, low <= 0 if aligned else low <= 0 <= high
    return differences


def randomisation(subject: Subject) -> Explanation:
    """Randomisation: the maps and scores that survive random weights, and so are independent of the learnt function.

    Layers are randomised one after another from the output (MPRT, Adebayo et al. 2018,
    https://arxiv.org/abs/1810.03292; with SmoothGrad's noise-averaged maps sMPRT); eMPRT compares the complexity of the
    maps (both Hedström et al. 2024, https://arxiv.org/abs/2401.06465).
    """
    test, model = subject.test, subject.classifier
    n = min(EXAMPLES, len(test.x))
    x, y = test.x[:n], test.y[:n]
    numbers, lines, notes = list[Number](), list[Line](), list[str]()
    for name, explain in _methods(subject, n).items():
        if name in CASCADED:
            cascade = similarities(model, explain, x, y, subject.seed)
            steps = [correlation[correlation.isfinite()] for correlation in cascade]
            means = tuple(float(correlation.mean()) if len(correlation) else None for correlation in steps)
            counts = tuple(float(count) for count in range(1, len(steps) + 1))
            lines.append(Line(f"similarity, {name}", counts, means, across="layers randomised from the output"))
            last = steps[-1] if steps else x.new_zeros(0)
        else:
            last = final_similarity(model, explain, x, y, subject.seed)
            last = last[last.isfinite()]
        numbers += average(f"similarity to the map of random weights, {name}", last.tolist())
        if len(last) and float(last.mean()) > DEPENDENT:
            notes.append(f"The map {name} survives random weights: it is meaningless here.")
        gain = complexity_gain(model, explain, x, y, subject.seed)
        numbers += average(f"eMPRT, {name}", gain[gain.isfinite()].tolist())
    trained = _scores(subject, x, y)
    with shuffled_weights(learnt_layers(model), subject.seed):
        random = _scores(subject, x, y)
    for name, (number, survives) in survivors(trained, random).items():
        numbers.append(number)
        if survives:
            notes.append(f"The score '{name}' survives random weights: it is meaningless here.")
    count = len(notes)
    summary = f"{count} maps or scores survive random weights." if count else "No map or score survives random weights."
    finding = Finding(
        "Randomisation", f"{summary} {n} test examples.", tuple(numbers), lines=tuple(lines), notes=tuple(notes)
    )
    return Explanation(finding)


def _methods(subject: Subject, n: int) -> dict[str, Explains]:
    """Return the saliency methods by name, with the same noise for all weights."""
    noise = Noise.of(subject.seed, subject.test.ids[:n])
    return {
        "gradient": input_gradient,
        "gradient x input": gradient_times_input,
        "integrated gradients": integrated_gradients,
        "SmoothGrad": lambda model, x, y: smooth_grad(model, x, y, noise),
        "occlusion": occlusion,
    }


def _scores(subject: Subject, x: Inputs, y: Labels) -> dict[str, PerExample]:
    """Return the scores of the maps, and the perceptual alignment if it can be measured."""
    methods = _methods(subject, len(x))
    scores = gradient_scores(input_gradient(subject.classifier, x, y), x)
    for name in ("integrated gradients", "SmoothGrad", "occlusion"):
        saliency = methods[name](subject.classifier, x, y)
        scores[f"total variation, {name}"] = total_variation(saliency)
        scores[f"sparseness, {name}"] = sparseness(saliency)
    if subject.train is not None and subject.classes > 2:
        batch = Batch(x, y, subject.test.ids[: len(x)])
        means = class_means(subject.train, subject.classes)
        score, _ = perceptual_alignment(subject.classifier, batch, means, subject.classes, subject.batch_size)
        scores["perceptual alignment"] = score
    return scores
