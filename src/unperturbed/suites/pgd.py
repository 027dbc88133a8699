"""Projected gradient descent with restarts (Madry et al. 2018, https://arxiv.org/abs/1706.06083): quick, and weak."""

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD

PGD_SUITE: Suite = Suite(
    "pgd",
    (
        GradientAttack("PGD-CE", cross_entropy, PGD(steps=50), restarts=10),
        GradientAttack("PGD-margin", margin, PGD(steps=50), restarts=10),
    ),
    "upper bound only: no AutoAttack",
)
