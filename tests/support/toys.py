"""Small networks and data whose truth is known, for the tests of evaluation and training."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.findings import Progress
from unperturbed.losses import cross_entropy, margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD
from unperturbed.types import Inputs, Labels, Logits

QUICK = Suite(
    "pgd",
    (
        GradientAttack("PGD-CE", cross_entropy, PGD(steps=4), restarts=2),
        GradientAttack("PGD-margin", margin, PGD(steps=4), restarts=2),
    ),
    "a test",
)
"""The suite `pgd` in little."""

SHORT = tuple(
    Suite(attack.label, (attack,), "a test")
    for attack in (
        GradientAttack("APGD-CE", cross_entropy, APGD(steps=10)),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=10), targets=2),
        FAB("FAB-T", steps=10, targets=2),
        Square(queries=60),
    )
)
"""Each of AutoAttack's attacks in little."""


class Function(nn.Module):
    """A classifier given by a function; it has one weight, so that it has a device and a precision."""

    def __init__(self, function: Callable[[Inputs], Logits]) -> None:
        super().__init__()
        self.function = function
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Inputs) -> Logits:
        return self.one * self.function(x)


class Quitting(nn.Module):
    """Raises `error` at its forward number `last`, counted from 1."""

    def __init__(self, inner: nn.Module, last: int, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.inner, self.last, self.error, self.calls = inner, last, error, 0

    def forward(self, x: Inputs) -> Logits:
        self.calls += 1
        if self.calls == self.last:
            raise self.error("quit")
        logits: Logits = self.inner(x)
        return logits


def linear(d: int, classes: int = 2, seed: int = 0) -> nn.Linear:
    """Return a random linear classifier without preference for a class at the middle of [0, 1]^d."""
    draw = torch.Generator().manual_seed(seed)
    model = nn.Linear(d, classes)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, d, generator=draw))
        model.bias.copy_(-model.weight.sum(1) / 2)
    return model


def mlp(d: int, classes: int = 2, seed: int = 0, dropout: float = 0.0, norm: bool = False) -> nn.Sequential:
    """Return a network with one hidden layer, with batch norm or dropout in it if asked for."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        middle: list[nn.Module] = [nn.BatchNorm1d(16)] if norm else []
        end: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(nn.Linear(d, 16), *middle, nn.ReLU(), *end, nn.Linear(16, classes))


def wavy() -> nn.Module:
    """Return a network that changes its mind often."""
    model = mlp(8, 3, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model


def uniform(n: int, d: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Inputs:
    """Return inputs uniform in [low, high]^d."""
    return low + (high - low) * torch.rand(n, d, generator=torch.Generator().manual_seed(seed))


def blobs(n: int, d: int = 6, classes: int = 3, seed: int = 0) -> tuple[Inputs, Labels]:
    """Return inputs in [0, 1]^d around one centre a class, and labels 0, 1 ... 0, 1 ...; learnt in a few steps."""
    draw = torch.Generator().manual_seed(seed)
    centres = 0.2 + 0.6 * torch.rand(classes, d, generator=torch.Generator().manual_seed(100))
    y = torch.arange(n) % classes
    return (centres[y] + 0.1 * torch.randn(n, d, generator=draw)).clamp(0, 1), y


class Stopped(Exception):
    """The exception of `stop_at`: the run ends as by a signal."""


def stop_at(step: int) -> Progress:
    """Return a progress that ends the run after this step."""

    def progress(done: float, total: float, text: str) -> None:
        if done == step:
            raise Stopped

    return progress


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Tell whether two states agree in every bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_seconds(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of metrics.jsonl without the one number that may differ."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
