"""A network under audit on digits, for tests of single checks."""

import torch
from torch import nn

from support.planted import EPS, examples
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations.audited import Audited
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.types import Batch

QUICK = Suite("quick", (GradientAttack("PGD-margin", margin, PGD(steps=40), restarts=2),), "a test")


def under_audit(model: nn.Module, n: int = 40, suite: Suite = QUICK, eps: float = EPS) -> Audited:
    """Return a network under audit on the first test digits."""
    x, y = examples(n)
    threat = Threat("Linf", eps)

    def run(network: nn.Module, attacks: Suite, name: str) -> Outcome:
        return evaluate(network, (x, y), threat, attacks)

    batch = Batch(x, y, torch.arange(n))
    return Audited(model.eval(), batch, threat, 10, 0, 128, suite, run)
