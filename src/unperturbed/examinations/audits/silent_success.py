"""Whether the suite returns the misclassified points that it has met (indicator I3 of attack failure)."""

from dataclasses import replace

import torch
from torch import nn

from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits

PASSES = 10
RUNS = 0.2
"""Runs of the suite on as many examples as most checks look at."""
RESTARTS = 2
"""At most as many restarts of each attack: whether an attack returns what it meets does not depend on their number."""
QUESTION = "Does the suite return the adversarial examples that it meets?"


def silent_success(audited: Audited) -> CheckResult:
    """Does an attack of the suite meet a misclassified point of the threat set and return another that is not one?

    (I3 of Pintor et al. 2022, https://arxiv.org/abs/2106.09947: the points that the network is given are watched while
    the attacks run, on examples that the suite leaves standing.)
    """
    if audited.behaviour.is_random:
        text = "the network draws random numbers: a misclassified point is one by chance"
        return CheckResult("silent_success", QUESTION, "not run", text, "", reason="not applicable")
    batch, n = audited.standing_batch, len(audited.standing_batch.y)
    met = torch.zeros(n, dtype=torch.bool, device=batch.y.device)
    returned, broke = torch.zeros_like(met), set[int]()
    for number, attack in enumerate(audited.suite.against(audited.threat.norm, audited.classes).attacks):
        watched = Watched(audited.reachable, batch, audited.threat)
        z = audited.climbed(with_fewer_restarts(attack), batch, 151 + number, watched)
        met |= watched.met
        returned |= audited.wrong(batch, z)
        broke |= set(audited.broke(batch, z))
    silent = int((met & ~returned).sum())
    return CheckResult(
        "silent_success",
        QUESTION,
        "fail" if silent else "pass",
        f"run again with few restarts, the suite {audited.suite.name} meets adversarial examples for {int(met.sum())} "
        f"of {n} examples that it left standing, and returns another point for {silent} of them",
        "none is lost (indicator I3)",
        ("weak suite",) if silent else (),
        numbers=(share("adversarial examples met and not returned", silent, n),),
        broke=tuple(sorted(broke)),
    )


def with_fewer_restarts(attack: Attack) -> Attack:
    """Limit an attack to `RESTARTS` random starts; return an attack without random starts unchanged."""
    if isinstance(attack, GradientAttack | MultiTargeted):
        return replace(attack, restarts=min(attack.restarts, RESTARTS))
    return attack


class Watched(nn.Module):
    """A network that records the examples for which an attack has passed a misclassified point of the threat set."""

    def __init__(self, network: nn.Module, batch: Batch, threat: Threat) -> None:
        super().__init__()
        self.network, self.batch, self.threat = network, batch, threat
        self.met = torch.zeros(len(batch.y), dtype=torch.bool, device=batch.y.device)
        self.order = {"Linf": torch.inf, "L2": 2.0, "L1": 1.0}[threat.norm]

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Logits = self.network(x)
        with torch.no_grad():
            self._note(x.detach(), logits.detach())
        return logits

    def _note(self, x: Inputs, logits: Logits) -> None:
        y = self.batch.y
        lead = logits.amax(1)[:, None] - logits[:, y]  # of each point over the label of each example
        points, examples = (self.threat.in_shares(inputs).flatten(1) for inputs in (x, self.batch.x))
        near = torch.cdist(points, examples, p=self.order) <= 1.001 * self.threat.eps
        places, rows = ((lead > 0) & near).nonzero().T
        if len(rows):
            inside = self.threat.contains(self.batch.x[rows], x[places])
            self.met[rows[inside]] = True
