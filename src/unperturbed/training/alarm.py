"""The live alarm: a cheap probe every epoch, and the detection of overfitting."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.ascent import climb
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch

AT_A_TIME = 256


@dataclass(frozen=True)
class Probe:
    """Accuracies on `n` held-out examples: clean, and with three kinds of perturbation."""

    clean: float
    noise: float
    """Under a random point of the threat set."""
    one_step: float
    """Under the maximiser of the linear model of the loss."""
    many_steps: float
    """Under ten steps of projected ascent: a quick look, not an evaluation."""
    robust_loss: float
    """Mean cross-entropy under the ten steps."""
    n: int


def probe(model: nn.Module, batch: Batch, threat: Threat, noise: Noise) -> Probe:
    """Measure the accuracies, in the precision of the inputs."""
    parts = torch.split(torch.arange(len(batch.x), device=batch.x.device), AT_A_TIME)
    with under_attack(model), as_reported(batch.x.device):
        sums = torch.stack([_probe_part(model, _rows(batch, rows), threat, noise.rows(rows)) for rows in parts]).sum(0)
    clean, noisy, one_step, many_steps, robust_loss = (sums / len(batch.x)).tolist()
    return Probe(clean, noisy, one_step, many_steps, robust_loss, len(batch.x))


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])


def _probe_part(model: nn.Module, batch: Batch, threat: Threat, noise: Noise) -> torch.Tensor:
    """Return the numbers of correct examples, clean, under noise, one step and ten steps, and the loss under ten."""
    score = cross_entropy_score(model, batch)
    _, _, gradient = climb(score, batch.x, torch.arange(len(batch.x), device=batch.x.device))
    with torch.no_grad():
        clean = model(batch.x)
        noisy = model(threat.sample(batch.x, noise.fold(0)))
        one_step = model(threat.maximise_linear(batch.x, gradient))
    end = PGD(steps=10)(score, batch.x, threat, noise.fold(1))
    with torch.no_grad():
        many_steps = model(end)
    correct = [(margin(logits, batch.y) < 0).sum() for logits in (clean, noisy, one_step, many_steps)]
    return torch.stack([*correct, cross_entropy(many_steps, batch.y).sum()]).double()


@dataclass(frozen=True)
class Alarm:
    """A warning of a probe, and whether the remedy is a stronger inner maximisation."""

    text: str
    too_weak: bool


def recognise(probes: Sequence[Probe], training_losses: Sequence[float]) -> Alarm | None:
    """Return the warning of the last probe, compared with the earlier ones, or None.

    Catastrophic overfitting (Wong et al. 2020, https://arxiv.org/abs/2001.03994, section 5.4): the accuracy under one
    step is close to the clean one, and that under ten steps less than half of it. Robust overfitting (Rice et al. 2020,
    https://arxiv.org/abs/2002.11569): three epochs or more after the best one, accuracy under ten steps has fallen by
    more than two standard errors and the loss there has risen, while the training loss kept falling.
    """
    last = probes[-1]
    if last.one_step > 0.6 * last.clean and last.many_steps < 0.5 * last.one_step:
        return Alarm(
            f"Catastrophic overfitting: {last.one_step:.0%} resist one step, but only {last.many_steps:.0%} resist ten "
            f"(random noise: {last.noise:.0%}; n={last.n}).",
            too_weak=True,
        )
    best = max(range(len(probes)), key=lambda epoch: probes[epoch].many_steps)
    top = probes[best]
    error = (2 * top.many_steps * (1 - top.many_steps) / top.n) ** 0.5
    fallen = top.many_steps - last.many_steps > 2 * error
    overfitted = last.robust_loss > top.robust_loss and training_losses[-1] < training_losses[best]
    if len(probes) - 1 - best >= 3 and fallen and overfitted:
        return Alarm(
            f"Robust overfitting: {last.many_steps:.0%} resist ten steps, down from {top.many_steps:.0%} "
            f"{len(probes) - 1 - best} epochs ago, while the training loss fell on (n={last.n}).",
            too_weak=False,
        )
    return None
