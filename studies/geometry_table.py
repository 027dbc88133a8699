"""One row per run folder: clean and robust accuracy, seconds an epoch, and gamma, on the first 1,000 test images.

gamma is the mean of |l(z) - l(x) - <z - x, g>| at the end of ten steps of PGD that climb it. The robust accuracy is
that of a suite by name, or, with "short", of one climb each of 20 steps on the cross-entropy and on the margin. An
evaluation that was interrupted is resumed.

    python studies/geometry_table.py [--suite short] RUN...
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from unperturbed import runs
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.curvature.linearity import linearity_gap
from unperturbed.data.sources import load_data
from unperturbed.data.split import Split, select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch
from unperturbed.weights.files import build_model, load_weights

SHORT = Suite(
    "short",
    (GradientAttack("PGD-20-CE", cross_entropy, PGD(steps=20)), GradientAttack("PGD-20-margin", margin, PGD(steps=20))),
    "an upper bound: two climbs of 20 steps",
)


def main() -> None:
    """Print the rows."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path, nargs="+")
    options.add_argument("--suite", default="short")
    parsed = options.parse_args()
    for folder in parsed.run:
        config, result = runs.read_yaml(folder / runs.CONFIG), json.loads((folder / runs.RESULT).read_text())
        model = build_model(config["model"]["class_path"], config["model"]["init_args"], (), 0, (), ())
        load_weights(model, folder / runs.BEST)
        model.eval()
        data = load_data(config["data"])
        assert data.test is not None
        examples, threat = select(data.test, torch.arange(1000)), Threat.parse(config["threat"], data.bounds)
        suite = SHORT if parsed.suite == "short" else parsed.suite
        outcome = evaluate(model, examples, threat, suite, out=folder / "evaluation" / "first-1000")
        gamma = nonlinearity(model, examples, threat)
        print(f"| `{config['method']['class_path']}` | {outcome.clean_accuracy} | {outcome.robust_accuracy} |"
              f" {result['seconds'] / result['epochs']:.0f} | {gamma:.4f} |", flush=True)  # fmt: skip


def nonlinearity(model: nn.Module, split: Split, threat: Threat) -> float:
    """Return the mean gamma."""
    total = 0.0
    for ids in torch.arange(len(split)).split(100):
        batch = Batch(split.inputs(ids), split.labels[ids], ids)
        with under_attack(model):
            gap = linearity_gap(model, batch, threat, Noise.of(0, ids), PGD(steps=10))
        total += float(gap.gap.sum())
    return total / len(split)


if __name__ == "__main__":
    main()
