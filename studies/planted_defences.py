"""Audit fourteen defences planted around a trained MNIST network, each against a long attack that knows the defence.

python studies/planted_defences.py --run runs/erm --examples 100 --out runs/planted.jsonl

Eight defences keep the answers: the truth is the robust accuracy of the undefended network under AutoAttack. Six change
them: the truth is an attack written for the defence (tests/support). A row is written after each defence; the same
command again goes on after the last one.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import unperturbed as un
from support.adaptive import expected_accuracy, levels_box, robust_accuracy, sampled, smooth
from support.planted import (
    Around,
    Averaged,
    Behind,
    Coupled,
    Dropped,
    Purified,
    Rounded,
    Scaled,
    Softmax,
    WinnersTakeAll,
)
from support.truths import rounded, unrolled
from unperturbed.data.sources import load_data
from unperturbed.types import Inputs, Labels, Logits

Truth = Callable[[Inputs, Labels], float]
KEPT, CHANGED = 0.02, 0.04
"""Differences of headline and truth that are allowed where the answers are kept, and where they change."""


class Parted(nn.Module):
    """A network of the package in the two parts that the planted defences take apart."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.features = nn.Sequential(Raised(), net.normalise, *net.layers[:-1])
        self.head = net.layers[-1]

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Logits = self.head(self.features(x - 0.3))
        return logits


class Raised(nn.Module):
    """Undoes the shift by 0.3 that the planted defences begin with."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x + 0.3."""
        return x + 0.3


class Detached(Around):
    """A linear skip, and a residual branch without a gradient that makes up the rest."""

    def forward(self, x: Inputs) -> Logits:
        """Return the logits with the gradient of the skip."""
        weights = torch.linspace(-1, 1, 10 * x[0].numel()).sin().view(-1, 10)
        skip = x.flatten(1) @ weights
        logits: Logits = skip + (self.net(x) - skip).detach()
        return logits


class Resized(Around):
    """The image at a random size and place (Xie et al. 2018)."""

    def forward(self, x: Inputs) -> Logits:
        """Return the logits of one draw, the same for the whole batch."""
        whole = x.shape[-1]
        size = int(torch.randint(whole - 4, whole + 1, (1,)))
        left, top = (int(torch.randint(0, whole + 1 - size, (1,))) for _ in range(2))
        small = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        logits: Logits = self.net(functional.pad(small, (left, whole - size - left, top, whole - size - top)))
        return logits


def defences(net: Any, eps: float, kept: Truth) -> dict[str, tuple[nn.Module, str, Truth, float]]:
    """Return the defences by name: the network, the cause to be named, the truth, and the allowed difference."""
    winners, purifier = WinnersTakeAll(net), Purified(net)

    def broken(real: Any, *ways: Any, **options: Any) -> Truth:
        return lambda x, y: robust_accuracy(real, ways, x, y, eps, starts=1, **options)

    def averaged(x: Inputs, y: Labels) -> float:
        model = Averaged(net)
        with torch.no_grad():
            for _ in range(3):
                model(x)
        return broken(lambda z: net(z) - model.average, lambda z: net(z) - model.average)(x, y)

    def random(model: nn.Module) -> Truth:
        draws = sampled(model, 12, 1), sampled(model, 100, 2)
        return lambda x, y: expected_accuracy(*draws, x, y, eps, steps=40, starts=1)

    def levels(x: Inputs, y: Labels) -> float:
        return broken(rounded(net, 7), rounded(net, 7), net, box=levels_box(x, eps, 7))(x, y)

    same = {
        "logits x 1000": (Scaled(net, 1000.0), "saturation"),
        "logits x 1e-4": (Scaled(net, 1e-4), "saturation"),
        "softmax": (Softmax(net), "probabilities in place of logits"),
        "zero gradient": (Behind(net, "zero"), "zero gradient"),
        "noisy gradient": (Behind(net, "noise"), "shattered"),
        "NaN gradient": (Behind(net, "nan"), "non-finite"),
        "detached branch": (Detached(net), "shattered"),
        "coupled scale": (Coupled(net), "batch dependence"),
    }
    resized, dropped = Resized(net), Dropped(net)
    other = {
        "8 levels": (Rounded(net), "quantised input", levels),
        "k winners": (winners, "shattered", broken(winners, smooth(winners, 0.05), winners, net)),
        "average over calls": (Averaged(net), "state", averaged),
        "purification": (purifier, "test-time optimisation", broken(purifier, net, unrolled(net), steps=50)),
        "random resizing": (resized, "random", random(resized)),
        "dropout": (dropped, "random", random(dropped)),
    }
    return {
        **{name: (model, cause, kept, KEPT) for name, (model, cause) in same.items()},
        **{name: (model, cause, truth, CHANGED) for name, (model, cause, truth) in other.items()},
    }


def main() -> None:
    """Write a row for each defence that has none yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--out", required=True)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    run = un.Run.open(arguments.run)
    test = load_data(arguments.data).test
    assert test is not None
    x, y = test.inputs(torch.arange(arguments.examples)), test.labels[: arguments.examples]
    net = Parted(run.model.eval().requires_grad_(False))
    out = Path(arguments.out)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {row["defence"]: row for row in rows}

    def write(name: str, **values: Any) -> None:
        done[name] = {"defence": name, **values}
        with out.open("a") as file:
            file.write(json.dumps(done[name]) + "\n")
        print(done[name], flush=True)

    if "none" not in done:
        write("none", truth=un.evaluate(net, (x, y), run.threat, "standard").robust_accuracy.value)
    undefended = done["none"]["truth"]
    planted = defences(net, run.threat.eps, lambda x, y: undefended)
    for name in arguments.only or planted:
        if name in done:
            continue
        model, cause, truth, allowed = planted[name]
        audit = un.audit(model, (x, y), run.threat, "pgd", budget=arguments.budget, examples=len(y))
        true = truth(x, y)
        write(
            name,
            truth=true,
            claimed=audit.claimed.value,
            headline=audit.headline.value,
            verdict=audit.verdict,
            causes=audit.causes,
            close=abs(audit.headline.value - true) <= allowed + 1e-9,
            named=cause in audit.causes,
            seconds=round(audit.seconds),
            failed={check.name: check.measured for check in audit.checks if check.verdict == "fail"},
        )


if __name__ == "__main__":
    main()
