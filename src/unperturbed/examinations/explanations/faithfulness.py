"""The faithfulness of maps to the network, and their sensitivity to the input."""

from typing import Any

import torch

from unperturbed.errors import InputError
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import (
    class_margin,
    gradient_times_input,
    integrated_gradients,
    natural_maps,
)
from unperturbed.examinations.explanations.maps import input_gradient as margin_gradient
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.statistics.per_example import average
from unperturbed.types import Inputs, Labels, Model, PerExample

EXAMPLES = 64
"""The largest number of examples."""
PERTURBATIONS = 32
"""Number of random perturbations of each example for infidelity."""
NOISE = 0.1
"""Their standard deviation, as a share of the range of the examples' values."""
RADIUS = 0.02
"""The radius of the uniform perturbations of max sensitivity, as a share of that range."""
DRAWS = 10
"""Their number."""


def metrics() -> Any:
    """Return `captum.metrics`; raises InputError if Captum is not installed."""
    try:
        from captum import metrics as found
    except ImportError as error:
        raise InputError("Explanations need Captum: pip install 'unperturbed[explain]'.") from error
    return found


def normalised_infidelity(
    model: Model, x: Inputs, y: Labels, attribution: Inputs, spread: float, seed: int = 0
) -> PerExample:
    """Return E (b <I, a> - (f(x) - f(x - I)))^2 of each example, with the scale b of the map fitted, by Captum.

    f is the margin of the true class and I normal noise of this standard deviation (Yeh et al. 2019,
    https://arxiv.org/abs/1901.09392, definition 2.1; b makes it independent of the scale of the map). Divided by
    E (f(x) - f(x - I))^2, so that 0 is a faithful map and 1 an uninformative one.
    """
    drops = list[torch.Tensor]()

    def forward(z: Inputs, labels: Labels) -> PerExample:
        return class_margin(model(z), labels)

    def perturb(inputs: Inputs) -> tuple[Inputs, Inputs]:
        noise = spread * torch.randn_like(inputs)
        return noise, inputs - noise

    with as_reported(x.device), under_attack(model), torch.no_grad(), own_randomness(seed, x.device):
        raw: PerExample = metrics().infidelity(
            forward,
            perturb,
            x,
            attribution,
            additional_forward_args=(y,),
            n_perturb_samples=PERTURBATIONS,
            normalize=True,
        )
        clean = forward(x, y)
        for _ in range(PERTURBATIONS):
            drops.append(clean - forward(x - spread * torch.randn_like(x), y))
    return raw / torch.stack(drops).square().mean(dim=0)


def max_sensitivity(method: Any, x: Inputs, y: Labels, radius: float, seed: int = 0) -> PerExample:
    """Return max |a(x + d) - a(x)| / |a(x)| over 10 random d with |d_i| <= radius (Yeh et al. 2019)."""
    clean = method(x, y)
    largest = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    with own_randomness(seed, x.device):
        for _ in range(DRAWS):
            moved = method(x + radius * (2 * torch.rand_like(x) - 1), y)
            largest = torch.maximum(largest, (moved - clean).flatten(1).norm(dim=1))
    sensitivity: PerExample = largest / clean.flatten(1).norm(dim=1)
    return sensitivity


def faithfulness(subject: Subject) -> Explanation:
    """Faithfulness: normalised infidelity and max sensitivity of each map (Yeh et al. 2019).

    https://arxiv.org/abs/1901.09392. Both are better when lower; an uninformative map has an infidelity of 1.
    """
    test = subject.test
    n = min(EXAMPLES, len(test.x))
    x, y = test.x[:n], test.y[:n]
    span = float(test.x.max() - test.x.min())
    numbers, notes = list[Number](), list[str]()
    for name, map_ in natural_maps(subject).items():
        local = (
            map_[:n] / torch.where(x == 0, torch.inf, x) if name != "gradient" and name != "SmoothGrad" else map_[:n]
        )
        values = normalised_infidelity(subject.classifier, x, y, local, NOISE * span, subject.seed)
        numbers += average(f"normalised infidelity, {name}", values[values.isfinite()].tolist())
    methods = {
        "gradient": margin_gradient,
        "gradient x input": gradient_times_input,
        "integrated gradients": integrated_gradients,
    }
    for name, method in methods.items():

        def of_network(z: Inputs, labels: Labels, method: Any = method) -> Inputs:
            maps: Inputs = method(subject.classifier, z, labels)
            return maps

        values = max_sensitivity(of_network, x, y, RADIUS * span, subject.seed)
        numbers += average(f"max sensitivity, {name}", values[values.isfinite()].tolist())
    notes.append("Maps that are multiplied by the input are divided by it for infidelity, where the input is not 0.")
    summary = f"Infidelity and sensitivity of the maps on {n} test examples."
    return Explanation(Finding("Faithfulness", summary, tuple(numbers), notes=tuple(notes)))
