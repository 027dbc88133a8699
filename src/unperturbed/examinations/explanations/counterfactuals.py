"""Sparse visual counterfactuals."""

import torch

from unperturbed.attacks.base import padded_logits
from unperturbed.examinations.explanations.ascents import sparse_counterfactual
from unperturbed.examinations.explanations.base import PICTURED, Explanation, grid
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.networks.modes import under_attack
from unperturbed.statistics.per_example import average, portion
from unperturbed.threat.lp_ball import LpBall
from unperturbed.threat.shares import zero_or_one
from unperturbed.types import Inputs, Labels

P = 1.5
EXAMPLES = 64
"""The largest number of examples."""


def counterfactuals(subject: Subject) -> Explanation:
    """Sparse visual counterfactuals: a change of few pixels after which the network predicts the second class.

    Frank-Wolfe with the exact oracle in the L1.5 ball and the box (Boreiko et al. 2022,
    https://arxiv.org/abs/2205.07972). A second network, if given, judges whether they show the class.
    """
    x, y = subject.test.x[:EXAMPLES], subject.test.y[:EXAMPLES]
    target = subject.test_logits[:EXAMPLES].scatter(1, y[:, None], -torch.inf).argmax(dim=1)
    shares = zero_or_one(subject.threat.shares)
    ball = LpBall(P, 0.12 * x.shape[1:].numel() ** (1 / P), subject.threat.bounds, shares)
    z = torch.cat(
        [
            sparse_counterfactual(subject.classifier, a, b, ball)
            for a, b in zip(torch.split(x, subject.batch_size), torch.split(target, subject.batch_size), strict=True)
        ]
    )
    inside = ball.contains(x, z)
    reached = (subject.logits(z).argmax(dim=1) == target) & inside
    changed = ((z - x).abs() > 0.05 * (z - x).abs().flatten(1).amax(dim=1).view(-1, *[1] * (x.dim() - 1))).flatten(1)
    numbers = portion("target class predicted", int(reached.sum()), len(x))
    numbers += average("share of features changed", changed.to(z.dtype).mean(dim=1).tolist(), "%")
    notes: tuple[str, ...] = ("No second network was given to judge whether the counterfactuals show their class.",)
    if subject.judge is not None:
        recognised = _judged(subject.judge, z, target, subject.batch_size) & inside
        before = _judged(subject.judge, x, target, subject.batch_size)
        numbers += portion("target class seen by the judge", int(recognised.sum()), len(x))
        numbers += portion("target class seen by the judge before", int(before.sum()), len(x))
        notes = ()
    n = min(PICTURED, len(x))
    rows = [f"{int(a)} to {int(b)}" for a, b in zip(y[:n], target[:n], strict=True)]
    title = "Sparse counterfactuals"
    caption = f"Images changed within the L1.5 ball of radius {ball.radius:.3g} towards the likeliest other class."
    columns = {"image": (x[:n], False), "counterfactual": (z[:n], False), "change": ((z - x)[:n], True)}
    pictures = grid("counterfactuals", title, caption, rows, columns)
    return Explanation(
        Finding(title, caption, numbers, notes=notes), pictures, {"image": x[:n], "counterfactual": z[:n]}
    )


def _judged(judge: torch.nn.Module, z: Inputs, target: Labels, batch_size: int) -> torch.Tensor:
    with under_attack(judge):
        logits = padded_logits(judge, z, batch_size)
    return (logits.argmax(dim=1) == target) & logits.isfinite().all(dim=1)
