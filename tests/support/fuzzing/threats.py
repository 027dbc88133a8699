"""Threats, suites and attacks to exchange for valid ones."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from support.fuzzing.data import FEATURES
from support.fuzzing.values import ANYTHING, Make, fail
from unperturbed import methods
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat


def quick(steps: int = 2) -> Suite:
    return Suite("quick", (GradientAttack("PGD", cross_entropy, PGD(steps=steps)),), "a test")


def threat() -> Threat:
    return Threat("Linf", 0.1)


BAD_THREAT: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "Linf:0.1",
    lambda: 0.1,
    lambda: ("Linf", 0.1),
    lambda: Threat,
    lambda: [threat()],
    lambda: Threat("Linf", 0.1, (0.4, 0.6)),
    lambda: Threat("Linf", 0.1, (torch.zeros(5), torch.ones(5))),
    lambda: Threat("Linf", 0.1, (torch.zeros(2, 1, 6), torch.ones(2, 1, 6))),
]
ODD_THREAT: list[Make] = [
    lambda: Threat("L2", 0.3),
    lambda: Threat("L1", 0.3),
    lambda: Threat("Linf", 0.0),
    lambda: Threat("L1", 0.0),
    lambda: Threat("L2", 1e-30),
    lambda: Threat("Linf", 1e30),
    lambda: Threat("L2", 1e30),
    lambda: Threat("L1", 3e38),
    lambda: Threat("Linf", 0.1, None),
    lambda: Threat("L2", 3e38, None),
    lambda: Threat("Linf", 3e38, None),
    lambda: Threat("L2", 0.3, (torch.zeros(FEATURES), torch.ones(FEATURES))),
    lambda: Threat("L1", 0.3, (np.zeros(FEATURES), np.ones(FEATURES))),
    lambda: Threat("Linf", 0.1, (-1e30, 1e30)),
    lambda: Threat("Linf", 0.1, (0.0, math.inf)),
]
BAD_SUITE: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "",
    lambda: "pdg",
    lambda: "pgd,",
    lambda: ",",
    lambda: "apgd-ce,nothing",
    lambda: 3,
    lambda: Suite,
    lambda: [quick()],
    lambda: PGD(),
    lambda: methods.AT(),
]


def suite_of(function: Callable[..., Any]) -> Make:
    return lambda: function


ODD_SUITE: list[Make] = [
    suite_of(function)
    for function in (
        lambda model, x, y: x,
        lambda model, x, y: x * math.nan,
        lambda model, x, y: x + 1000,
        lambda model, x, y: None,
        lambda model, x, y: x[:1],
        lambda model, x, y: x.double(),
        lambda model, x, y: x.to_sparse(),
        lambda model, x, y: x.to(torch.complex64),
        lambda model, x, y: x.to("meta"),
        lambda model, x, y: x.numpy(),
        lambda model, x, y: x.zero_(),
        lambda model, x, y: y.zero_(),
        lambda model, x, y: model(None),
        lambda model, x, y: fail(ValueError("in the attack")),
        lambda model, x, y: fail(SystemExit(0)),
        lambda model, x: x,
        lambda: None,
        lambda model, x, y: model.requires_grad_(True) and x,
        lambda model, x, y: model.train() and x,
    )
]
