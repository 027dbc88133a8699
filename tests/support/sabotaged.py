"""Attacks that were weakened on purpose, which a self-test must not let pass."""

from collections.abc import Callable

from torch import Tensor, nn

from support.toys import Function
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.attack import attack
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels

FGSM = Suite("fgsm", (GradientAttack("FGSM", cross_entropy, PGD(1, 1.0, random_start=False)),), "one step")
STRONG = Suite("strong", (GradientAttack("PGD", margin, PGD(steps=30), restarts=6),), "an attack to be weakened")


def sabotaged(threat: Threat) -> dict[str, Callable[[nn.Module, Inputs, Labels], Tensor]]:
    """Return weakened attacks by the name of their fault."""

    def strong(model: nn.Module, x: Inputs, y: Labels) -> Tensor:
        return attack(model, x, y, threat, STRONG)

    def detached(model: nn.Module, x: Inputs, y: Labels) -> Tensor:
        return strong(Function(lambda z: model(z.detach()) + 0 * z.flatten(1).sum(1, keepdim=True)), x, y)

    return {
        "no step": lambda model, x, y: x,
        "wrong sign": lambda model, x, y: threat.project(x, 2 * x - strong(model, x, y)),
        "label off by one": lambda model, x, y: strong(model, x, 1 - y),
        "detached gradient": detached,
        "a tenth of the ball": lambda model, x, y: x + 0.1 * (strong(model, x, y) - x),
    }
