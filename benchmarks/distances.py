"""Distances to the nearest misclassified points by `minimum_norm`, beside those of other libraries' attacks.

For each example that the network classifies correctly: the distance by the suite `nearest` (in L0 `sparse`), and by
each of the attacks of adv_lib and foolbox that minimise this norm, with their default parameters and 1,000 steps. The
points of both sides are evaluated afresh in float32, in the box; one that is classified correctly counts as no point.
A row says on which share of the examples the other attack is smaller by more than 0.1%, on which ours is, and the
passes (forwards and backwards) of both per example.

adv_lib and foolbox are no dependencies of the package: `pip install --no-deps adv-lib foolbox eagerpy`; adv_lib also
imports torchvision, visdom and tqdm.

    python benchmarks/distances.py RUN [--data DATA] [--threat L2:1.5] [--examples 100] [--steps 1000] [--out FILE]
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import unperturbed as un
from unperturbed.attacks.base import padded_logits
from unperturbed.data.split import Split, select
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.losses import margin
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels

Peer = Callable[[nn.Module, Inputs, Labels], Inputs]
SMALLER = 1e-3
"""The relative difference from which a distance counts as smaller."""


class Counted(nn.Module):
    """A network that counts the examples that go forward and backward through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Inputs) -> Tensor:
        """Return the logits."""
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def peers(norm: str, steps: int) -> dict[str, Peer]:
    """Return the attacks of adv_lib and foolbox in this norm, by name, without quantisation of their points."""
    from adv_lib import attacks

    power = {"Linf": math.inf, "L2": 2.0, "L1": 1.0, "L0": 0.0}[norm]
    by_norm: dict[str, dict[str, Peer]] = {
        "Linf": {},
        "L2": {
            "ALMA": partial(attacks.alma, distance="l2", num_steps=steps),
            "DDN": partial(attacks.ddn, steps=steps, levels=None),
            "PDGD": partial(attacks.pdgd, num_steps=steps),
            "DDN (foolbox)": partial(_foolbox_ddn, steps=steps),
        },
        "L1": {"ALMA": partial(attacks.alma, distance="l1", num_steps=steps)},
        "L0": {"sigma-zero": partial(attacks.sigma_zero, num_steps=steps)},
    }
    return by_norm[norm] | {
        "FMN": partial(attacks.fmn, norm=power, steps=steps),
        "PDPGD": partial(attacks.pdpgd, norm=power, num_steps=steps),
    }


def _foolbox_ddn(model: nn.Module, x: Inputs, y: Labels, steps: int) -> Inputs:
    from foolbox import PyTorchModel
    from foolbox.attacks import DDNAttack

    points: Tensor = DDNAttack(steps=steps).run(PyTorchModel(model, bounds=(0, 1)), x, y)
    return points


def verified(model: nn.Module, x: Inputs, y: Labels, z: Inputs, threat: Threat) -> Tensor:
    """Return the distances of points, in the box, that a fresh forward misclassifies; infinite for others."""
    z = threat.boxed(z.detach().nan_to_num(nan=0.0))
    wrong = margin(padded_logits(model, z, len(z)), y) > 0
    return torch.where(wrong, threat.distance(x, z), torch.inf)


def ours(model: nn.Module, split: Split, threat: Threat) -> tuple[Tensor, float, float]:
    """Return our distances, the passes per example, and the seconds."""
    began = time.perf_counter()
    distances = minimum_norm(model, split, threat, "sparse" if threat.norm == "L0" else "nearest")
    passes = sum(record.forwards + record.backwards for record in distances.searches) / len(split)
    for record in distances.searches:
        print(f"    {record.name}: nearest {record.nearest}, {record.forwards + record.backwards} passes")
    return torch.tensor(distances.examples["distance"]), passes, time.perf_counter() - began


def shares(ours_there: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Return the share of examples where theirs is smaller, and where ours is, by more than 0.1%."""
    return tuple(
        float((one < (1 - SMALLER) * other).float().mean())
        for one, other in ((theirs, ours_there), (ours_there, theirs))
    )  # type: ignore[return-value]


def main() -> None:
    """Print a row for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data")
    parser.add_argument("--threat")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="file for the distances of each example")
    arguments = parser.parse_args()
    run = un.Run.open(arguments.run)
    data = un.load_data(arguments.data) if arguments.data else run.data
    assert data.test is not None
    rows = torch.arange(arguments.examples)
    split = select(data.test, rows)
    x, y, model = split.inputs(rows), split.labels, run.model.requires_grad_(False)
    threat = Threat.parse(arguments.threat, run.bounds) if arguments.threat else run.threat
    nearest, passes, seconds = ours(model, split, threat)
    correct = nearest > 0
    print(f"{threat}: {int(correct.sum())} of {len(y)} examples are classified correctly")
    print(f"ours: median {nearest[correct].median():.5g}, {passes:.0f} passes an example, {seconds:.0f} s")
    record = {"ours": nearest.tolist()}
    print("| attack | median | smaller | ours smaller | passes | seconds |\n|---|---|---|---|---|---|")
    with under_attack(model):
        for name, attack in peers(threat.norm, arguments.steps).items():
            counted, began = Counted(model), time.perf_counter()
            theirs = verified(model, x, y, attack(counted, x.clone(), y), threat)
            spent, made = time.perf_counter() - began, (counted.forwards + counted.backwards) / len(y)
            smaller, larger = shares(nearest[correct], theirs[correct])
            median = float(theirs[correct].median())
            print(f"| {name} | {median:.5g} | {smaller:.1%} | {larger:.1%} | {made:.0f} | {spent:.0f} |", flush=True)
            record[name] = theirs.tolist()
    if arguments.out:
        arguments.out.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
