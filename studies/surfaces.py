"""The loss surfaces of several networks around one CIFAR-10 test example that all of them classify correctly.

    python studies/surfaces.py DATA OUT.svg NAME=WEIGHTS [NAME=WEIGHTS ...]

The weights are those of the smooth small network that studies/curvature_claims.py trains; the threat is Linf 8/255.
"""

import argparse
from pathlib import Path

import torch

from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.data.sources import load_data
from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.examinations.explanations.surface import loss_surface
from unperturbed.losses import margin
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.reports.charts.style import save_chart
from unperturbed.reports.charts.surfaces import Panel, surfaces_chart
from unperturbed.threat import Threat
from unperturbed.types import Batch, Model
from unperturbed.weights.files import load_weights

THREAT = Threat("Linf", 8 / 255)


def network(weights: str) -> SmallCNN:
    """Return the smooth network with these weights."""
    model = SmallCNN((3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, activation="silu")
    load_weights(model, weights)
    return model.eval()


def first_correct(models: dict[str, Model], split: Split) -> Batch:
    """Return the first of the test examples that every model classifies correctly."""
    for ids in torch.split(torch.arange(len(split)), 256):
        x, y = split.inputs(ids), split.labels[ids]
        correct = torch.ones(len(ids), dtype=torch.bool)
        for model in models.values():
            with under_attack(model), torch.no_grad():
                correct &= margin(model(x), y) < 0
        if correct.any():
            row = correct.nonzero()[0]
            return Batch(x[row], y[row], ids[row])
    raise InputError("There is no test example that all of the models classify correctly: leave out the weakest.")


def main() -> None:
    """Draw the surfaces."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data")
    options.add_argument("out", type=Path)
    options.add_argument("weights", nargs="+", metavar="NAME=WEIGHTS")
    parsed = options.parse_args()
    data = load_data(parsed.data)
    assert data.test is not None
    pairs = [text.partition("=") for text in parsed.weights]
    if not all(name and weights for name, _, weights in pairs):
        options.error("name each of the weights: NAME=WEIGHTS")
    models: dict[str, Model] = {name: network(weights) for name, _, weights in pairs}
    example = first_correct(models, data.test)
    panels = []
    for name, model in models.items():
        surface = loss_surface(model, example, THREAT, Noise.of(0, example.ids), points=21, reach=2.0)
        roughness, clean, highest = (
            float(v[0]) for v in (surface.roughness, surface.clean, surface.values.amax((1, 2)))
        )
        print(f"{name:17}loss {clean:.3f}, highest {highest:.3f}, at most {roughness:.3f} off the tangent plane")
        panels.append(
            Panel(name, f"at most {roughness:.2g} off its tangent plane", surface.along, surface.values[0].tolist())
        )
    words = f"Loss around test example {int(example.ids)} ({data.classes[int(example.y)]}), {THREAT}"
    save_chart(surfaces_chart(panels, words), parsed.out)
    print(f"{words}: {parsed.out}")


if __name__ == "__main__":
    main()
