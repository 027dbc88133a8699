"""Audit trained networks and defences planted around one of them, and print a table of verdicts and headlines.

python studies/audited_networks.py --data mnist --runs runs/at runs/fgsm --planted runs/at --examples 100
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import unperturbed as un
from unperturbed.data.sources import load_data
from unperturbed.types import Inputs, Logits


class Function(nn.Module):
    """A network as a function of another one and its inputs."""

    def __init__(self, net: nn.Module, forward: Any) -> None:
        super().__init__()
        self.net, self.function = net, forward

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Logits = self.function(self.net, x)
        return logits


class Backward(torch.autograd.Function):
    """The identity with a backward of zeros, of noise, or of NaN."""

    @staticmethod
    def forward(context: Any, x: Tensor, kind: str) -> Tensor:
        """Return x."""
        context.kind = kind
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return a false gradient."""
        if context.kind == "noise":
            return torch.randn_like(gradient), None
        return torch.full_like(gradient, 0.0 if context.kind == "zero" else torch.nan), None


class Averaged(nn.Module):
    """Subtracts a moving average of the logits over calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.average: Tensor | None = None

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Logits = self.net(x)
        now = logits.detach().mean(0)
        self.average = now if self.average is None else 0.9 * self.average + 0.1 * now
        return logits - self.average


def purified(net: nn.Module, x: Inputs) -> Logits:
    """Return the logits after four steps towards a smoother image of which the network is surer."""
    z = x.detach()
    for _ in range(4):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            rough = (z - functional.avg_pool2d(z, 3, 1, 1)).square().sum()
            (slope,) = torch.autograd.grad(5 * rough - net(z).logsumexp(1).sum(), z)
        z = (z - 0.02 * slope.sign()).clamp(0, 1).detach()
    logits: Logits = net(z)
    return logits


def resized(net: nn.Module, x: Inputs) -> Logits:
    """Return the logits of the image at a random size and place."""
    whole = x.shape[-1]
    size = int(torch.randint(whole - 4, whole + 1, (1,)))
    left, top = (int(torch.randint(0, whole + 1 - size, (1,))) for _ in range(2))
    small = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    logits: Logits = net(functional.pad(small, (left, whole - size - left, top, whole - size - top)))
    return logits


def detached(net: nn.Module, x: Inputs) -> Logits:
    """Return the logits with the gradient of a fixed linear function."""
    weights = torch.linspace(-1, 1, 10 * x[0].numel()).sin().view(-1, 10)
    skip = x.flatten(1) @ weights
    logits: Logits = skip + (net(x) - skip).detach()
    return logits


def coupled(net: nn.Module, x: Inputs) -> Logits:
    """Return the logits on a scale that depends on the batch."""
    logits: Logits = net(x)
    return logits * (1 + 3 * logits.abs().mean()) ** 2 / (logits.norm() + 1e-3)


def planted(net: nn.Module) -> dict[str, nn.Module]:
    """Return defences around a network: eight that keep its answers, and four that change them."""
    forwards: dict[str, Any] = {
        "logits x 1000": lambda net, x: 1000 * net(x),
        "logits x 1e-4": lambda net, x: 1e-4 * net(x),
        "softmax": lambda net, x: net(x).softmax(1),
        "zero gradient": lambda net, x: net(Backward.apply(x, "zero")),
        "noisy gradient": lambda net, x: net(Backward.apply(x, "noise")),
        "NaN gradient": lambda net, x: net(Backward.apply(x, "nan")),
        "detached branch": detached,
        "coupled scale": coupled,
        "input of 8 levels": lambda net, x: net((7 * x).round() / 7),
        "random resizing": resized,
        "purification": purified,
    }
    defences: dict[str, nn.Module] = {name: Function(net, forward) for name, forward in forwards.items()}
    return {**defences, "average over calls": Averaged(net)}


def networks(given: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield each network with its name and its threat."""
    for folder in given.runs:
        run = un.Run.open(folder)
        yield Path(folder).name, run.model, run.threat
    if given.planted:
        run = un.Run.open(given.planted)
        for name, model in planted(run.model.eval()).items():
            if not given.only or name in given.only:
                yield name, model, run.threat


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--planted")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--budget", type=float, default=300.0)
    given = parser.parse_args()
    data = load_data(given.data)
    print("| network | clean | suite pgd | headline | verdict | causes | seconds |\n|---|---|---|---|---|---|---|")
    for name, model, threat in networks(given):
        found = un.audit(model, data, threat, "pgd", examples=given.examples, budget=given.budget)
        row = (
            name,
            *(f"{value.value:.1%}" for value in (found.clean, found.claimed, found.headline)),
            found.verdict,
            ", ".join(found.causes) or "none",
            f"{found.seconds:.0f}",
        )
        print("| " + " | ".join(row) + " |", flush=True)
        for check in found.checks:
            if check.verdict != "pass":
                print(f"{name}: {check.name} {check.verdict}: {check.measured}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
