"""A check whether adversarial examples of other networks break survivors of attacks along the gradient."""

import math

import torch
from torch import nn
from torch.nn import functional

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.noise import Noise
from unperturbed.types import Inputs, Labels

PASSES = 500
UPDATES, BATCH = 150, 64
"""Number of batches of the small network's training, each in two versions."""
ENOUGH = 100
"""Number of further inputs that suffice for its training; with fewer, the examples are used."""
FEWER = 200
"""Number of training inputs if the network must be called with single inputs."""
LEAD = 0.1
"""Share of the examples that may fall to transferred points only."""


def transferred(audited: Audited) -> CheckResult:
    """Do points that break a small network trained on this one's labels, or given networks, break more than PGD?

    (Papernot et al. 2017, https://arxiv.org/abs/1602.02697; Carlini et al. 2019: white-box attacks must do better on
    every example.)
    """
    few, n = audited.few, len(audited.few.y)
    inputs = audited.unlabelled
    if inputs is None or len(inputs) < ENOUGH:
        inputs = audited.batch.x
    if audited.behaviour.coupled:
        inputs = inputs[:FEWER]
    learner, agreement = taught(audited, inputs)
    sources: dict[str, nn.Module] = {"a small network trained on its labels": learner, **audited.peers}
    attack = GradientAttack("PGD", margin, PGD(steps=40), restarts=2, enough=torch.inf)
    black = torch.zeros(n, dtype=torch.bool, device=few.y.device)
    counts, broke = [], set[int]()
    for number, (name, source) in enumerate(sources.items()):
        z = audited.climbed(attack, few, 201 + number, source)
        wrong = audited.wrong(few, z)
        black |= wrong
        broke |= set(audited.broke(few, z))
        counts.append(f"{int(wrong.sum())} from {name}")
    only = int((black & ~audited.white_box).sum())
    bad = only > LEAD * n and not audited.behaviour.is_random
    return CheckResult(
        "transferred",
        "Do attacks made without the network do less than attacks on it?",
        "fail" if bad else "pass",
        f"PGD on the network breaks {int(audited.white_box.sum())} of {n}, points of other networks {', '.join(counts)}"
        f" (which agrees with it on {agreement:.0%} of inputs); {only} fall to these only",
        f"at most {LEAD:.0%} fall to other networks' points only",
        ("shattered",) if bad else (),
        numbers=(
            share("broken by other networks' points", int(black.sum()), n),
            share("broken by other networks' points only", only, n),
            Number("agreement of the small network", agreement, len(inputs), unit="%"),
        ),
        broke=tuple(sorted(broke)),
    )


def taught(audited: Audited, inputs: Inputs) -> tuple[nn.Module, float]:
    """Train a small network on the predictions of this one; return it, and the share of equal predictions.

    It sees the inputs with random changes of the threat set, and with a step along its own gradient (as in Papernot et
    al.), labelled by the network in each case.
    """
    shape, device = inputs.shape[1:], inputs.device
    image = len(shape) == 3 and min(shape[1:]) >= 4
    threat = audited.threat
    ids = torch.arange(len(inputs), device=device)
    with own_randomness(audited.seed, device), torch.enable_grad():
        torch.manual_seed(audited.seed)
        learner = (SmallCNN if image else MLP)(tuple(shape), audited.classes).to(device, inputs.dtype).train()
        optimiser = torch.optim.Adam(learner.parameters(), 2e-3)
        for epoch in range(math.ceil(UPDATES * BATCH / len(inputs))):
            noise = Noise.of(audited.seed, ids).fold(211 + epoch)
            for rows in torch.split(torch.randperm(len(inputs)).to(device), BATCH):
                x = threat.sample(inputs[rows], noise.rows(rows))
                y = audited.answers(x).argmax(1)
                _learn(learner, optimiser, x, y)
                leaf = x.clone().requires_grad_()
                (slope,) = torch.autograd.grad(functional.cross_entropy(learner(leaf), y, reduction="sum"), leaf)
                z = threat.maximise_linear(inputs[rows], slope)
                _learn(learner, optimiser, z, audited.answers(z).argmax(1))
    learner.eval()
    with torch.no_grad(), under_attack(learner):
        mine = torch.cat([learner(part).argmax(1) for part in torch.split(inputs, 256)])
    return learner, float((mine == audited.answers(inputs).argmax(1)).double().mean())


def _learn(learner: nn.Module, optimiser: torch.optim.Optimizer, x: Inputs, y: Labels) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(functional.cross_entropy(learner(x), y))
    optimiser.step()
