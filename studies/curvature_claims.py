"""Tests of two claims about methods on local geometry, on a reduced CIFAR-10.

1. SCORPIO with one step is more robust than a penalty on the input gradient and than CURE (Tsiligkaridis & Roberts
   2020).
2. LLR with two steps loses less from a weak evaluation to a strong one than adversarial training with two (Qin et al.
   2019).

Each method's weight is chosen on one seed by its accuracy under ten steps on held-out training examples, then it is
trained on every seed. Differences are paired over test examples and seeds; their intervals are for other seeds and
examples. Every run has a separate file, so that an interrupted study resumes.

    python -m studies.curvature_claims DATA OUT [--suite pgd] [--epochs 15] [--seeds 3]
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.runs import write_json
from unperturbed.statistics.paired import interval, verdict
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.weights.files import load_weights, save_weights

THREAT = Threat("Linf", 8 / 255)
PGD_10 = Suite("pgd-10", (GradientAttack("PGD-10", cross_entropy, PGD(steps=10)),), "a weak evaluation, on purpose")
CHOICES: dict[str, dict[str, Method]] = {
    "scorpio": {f"weight {w:g}": SCORPIO(steps=1, weight=w) for w in (0.5, 1.0, 1.5)},
    "gradient-penalty": {f"weight {w:g}": GradientPenalty(weight=w) for w in (0.3, 1.0, 3.0, 10.0)},
    "cure": {f"weight {w:g}": CURE(weight=w) for w in (0.5, 2.0, 8.0)},
    "llr": {f"gap {w:g}": LLR(gap=w) for w in (2.0, 4.0, 8.0)},
    "at-2": {"no weight": AT(PGD(steps=2))},
}


@dataclass(frozen=True)
class Study:
    """The paths of data and results, and the length of the runs."""

    data: Data
    out: Path
    suite: str
    epochs: int

    def trained(self, label: str, method: Method, seed: int) -> dict[str, Any]:
        """Train, or read the result of an earlier call; return the accuracies on held-out examples."""
        folder = self.out / f"{label} seed {seed}".replace(" ", "_")
        if (folder / "trained.json").exists():
            return dict(json.loads((folder / "trained.json").read_text()))
        recipe = Recipe(self.epochs, 128, validation=0.1, seed=seed, augment="flip-crop")
        result = train(self.network(seed), self.data, THREAT, method, recipe)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(result.model, folder / "best.safetensors")
        write_json(folder / "trained.json", result.json())
        return result.json()

    def survivors(self, label: str, seed: int, suite: Suite | str) -> Tensor:
        """Return the survivors of the suite among the first 1,000 test examples, as 0 and 1."""
        folder = self.out / f"{label} seed {seed}".replace(" ", "_")
        name = suite if isinstance(suite, str) else suite.name
        if not (folder / f"{name}.json").exists():
            model = self.network(seed)
            load_weights(model, folder / "best.safetensors")
            assert self.data.test is not None
            outcome = evaluate(model, select(self.data.test, torch.arange(1000)), THREAT, suite)
            write_json(folder / f"{name}.json", {"verdicts": list(outcome.examples["verdict"]), "n": outcome.n})
        verdicts = json.loads((folder / f"{name}.json").read_text())["verdicts"]
        return torch.tensor([verdict == "survived" for verdict in verdicts], dtype=torch.float64)

    def network(self, seed: int) -> SmallCNN:
        """Return the smooth network before training."""
        torch.manual_seed(seed)
        return SmallCNN((3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, activation="silu")


def main() -> None:
    """Run the study."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data")
    options.add_argument("out", type=Path)
    options.add_argument("--suite", default="pgd")
    options.add_argument("--epochs", type=int, default=15)
    options.add_argument("--seeds", type=int, default=3)
    parsed = options.parse_args()
    data = load_data(parsed.data)
    reduced = Data(data.name, select(data.train, torch.arange(10_000)), data.test, data.classes, data.bounds)
    study = Study(reduced, parsed.out, parsed.suite, parsed.epochs)

    best: dict[str, str] = {}
    for name, choices in CHOICES.items():
        held_out = {}
        for choice, method in choices.items():
            result = study.trained(f"{name} {choice}", method, seed=0)
            robust, accurate = held_out[choice] = (result["robust_accuracy"], result["clean_accuracy"])
            print(f"{name:17}{choice:12} held out: clean {accurate:.1%}, ten steps {robust:.1%}", flush=True)
        best[name] = max(held_out, key=lambda choice: held_out[choice])

    weak, strong, clean = {}, {}, {}
    for name, choice in best.items():
        for seed in range(parsed.seeds):
            study.trained(f"{name} {choice}", CHOICES[name][choice], seed)
        runs = [(f"{name} {choice}", seed) for seed in range(parsed.seeds)]
        weak[name] = torch.stack([study.survivors(*run, PGD_10) for run in runs])
        strong[name] = torch.stack([study.survivors(*run, parsed.suite) for run in runs])
        clean[name] = torch.stack([study.survivors(*run, CLEAN) for run in runs])
        per_seed = ", ".join(f"{float(row.mean()):.1%}" for row in strong[name])
        print(f"{name:17}{choice:12} clean {clean[name].mean():.1%}, PGD-10 {weak[name].mean():.1%}, "
              f"{parsed.suite} {strong[name].mean():.1%} ({per_seed})", flush=True)  # fmt: skip

    for rival in ("gradient-penalty", "cure"):
        mean, low, high = interval(strong["scorpio"] - strong[rival])
        decision = verdict(low, high, parsed.seeds)
        print(f"scorpio - {rival}: {mean:+.1%} [{low:+.1%}, {high:+.1%}] under {parsed.suite}: {decision}")
    lost = {name: weak[name] - strong[name] for name in ("at-2", "llr")}
    mean, low, high = interval(lost["at-2"] - lost["llr"])
    print(f"lost by at-2 - lost by llr: {mean:+.1%} [{low:+.1%}, {high:+.1%}]: {verdict(low, high, parsed.seeds)}")


CLEAN = Suite("clean", (), "no attack")

if __name__ == "__main__":
    main()
