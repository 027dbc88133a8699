"""The plan of an audit: its number of examples, the strength of its last attacks, and its cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.examinations.audited import FEW, PLACE, Check
from unperturbed.examinations.behaviour import behaviour_of
from unperturbed.examinations.clock import Start
from unperturbed.examinations.remedies.deployed import OneByOne
from unperturbed.findings import Outcome, typed
from unperturbed.networks.modes import under_attack
from unperturbed.suites.passes import suite_passes

MOST, LEAST = 200, 50
"""Limits on the number of examples if it follows from the budget."""
REMEDIED = 1500
"""Approximate passes of the attacks after the remedies at full strength for an unbroken example."""
CHOOSING = 12 * 32 * 10
"""Passes for the choice of the remedies."""
WEAKEST = 0.25
"""The least strength of the attacks after the remedies."""
STANDING = 0.8
"""Approximate share of examples that need long attacks; examples that break early cost little."""


@dataclass(frozen=True)
class Plan:
    """The plan of an audit, with its cost.

    Attributes:
        examples: their number.
        seconds: approximate duration.
        strength: of the attacks after the remedies, as a share of their steps.
        batch_size: examples in a batch. budget: limit in seconds.
        rate: seconds of a forward and a backward per example.
        suite: remaining passes per example of the evaluation in question; 0 if it is stored.
    """

    examples: int
    seconds: float
    strength: float
    batch_size: int
    budget: float
    rate: float
    suite: float

    def __str__(self) -> str:
        """Return the announcement."""
        text = f"Audit of {self.examples} examples, about {self.seconds:.0f} s on this machine"
        if self.seconds > 1.2 * self.budget:
            return f"{text}, more than the budget of {self.budget:.0f} s: checks that do not fit are left out"
        return text

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Plan":
        """Return the plan from the output of `json`; raises TypeError for other values."""
        plan = typed(cls, value)
        if min(plan.examples, plan.batch_size) < 1 or min(plan.strength, plan.budget) <= 0 or plan.rate < 0:
            raise TypeError(f"{dict(value)!r:.200} is no plan of an audit")
        return plan


class Clock:
    """The clock of an audit: the remaining budget, and the duration of passes as measured so far."""

    def __init__(self, plan: Plan, began: Start) -> None:
        self.plan, self.began = plan, began
        self.expected = self.measured = 0.0

    @property
    def left(self) -> float:
        """The remaining seconds of the budget."""
        return self.plan.budget - self.began.seconds

    def record(self, passes: float, seconds: float) -> None:
        """Record the measured duration of passes."""
        self.expected += passes * self.plan.rate
        self.measured += seconds

    def seconds(self, passes: float) -> float:
        """Return the expected seconds of passes: as planned, or longer if the passes so far took longer."""
        slower = max(1.0, self.measured / self.expected) if self.expected > 0 else 1.0
        return passes * self.plan.rate * slower

    def remedied(self, strength: float) -> float:
        """Return the seconds of the attacks after the remedies."""
        return self.seconds(STANDING * self.plan.examples * REMEDIED * strength)


def plan_for(
    looked: CheckedModel,
    available: int,
    suite: Suite,
    budget: float,
    examples: int | None,
    batch_size: int | Literal["auto"],
    stored: Outcome | None,
) -> Plan:
    """Return the plan that fits the budget, by the time of forwards and backwards.

    Args:
        looked: the network with its first examples.
        available: number of available examples.
        suite: the evaluation in question.
        budget: seconds.
        examples: requested number; None: as the budget allows, 50 to 200.
        batch_size: examples that the network sees at a time.
        stored: a finished evaluation by the suite, which is reused, or None.
    """
    most = min(available, MOST if examples is None else examples)
    known = 0 if stored is None else len(_first_ids(stored))
    if examples is None and known >= min(LEAST, available):
        most = min(most, known)
    size = physical_batch_size(batch_size, looked, most)
    rate = seconds_of_a_pass(looked, min(size, FEW))
    passes = 0.0 if known >= most else suite_passes(suite, looked.classes)
    fixed = rate * (CHOOSING + checks_passes(suite, looked.classes))

    def seconds(n: int, strength: float) -> float:
        return fixed + rate * STANDING * n * (passes + REMEDIED * strength)

    if examples is None:
        fitting = int((budget - fixed) / (rate * STANDING * (passes + REMEDIED)))
        most = min(most, max(LEAST, fitting))
    spare = (budget - seconds(most, 0.0)) / (rate * STANDING * most * REMEDIED)
    strength = round(min(1.0, max(WEAKEST, spare)), 2)
    return Plan(most, seconds(most, strength), strength, size, budget, rate, passes)


def _first_ids(stored: Outcome) -> range:
    """Return the ids 0, 1, 2, ... in an evaluation up to the first gap, since the audit uses the first examples."""
    names = set(stored.examples["id"])
    count = 0
    while count in names:
        count += 1
    return range(count)


def seconds_of_a_pass(looked: CheckedModel, batch_size: int) -> float:
    """Return the median seconds of a forward and a backward per example, in the network's way of being called."""
    x = looked.examples[torch.arange(batch_size, device=looked.device) % len(looked.examples)]
    network: nn.Module = looked.classifier
    if behaviour_of(network, looked.examples, 0, batch_size).coupled:
        network = OneByOne(network)
    times = []
    for _ in range(3):
        began = Start.now()
        with under_attack(network), torch.enable_grad():
            leaf = x.clone().requires_grad_()
            logits = network(leaf)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
        times.append(began.seconds)
    return sorted(times)[1] / batch_size


def checks_in(folder: Path = PLACE) -> list[tuple[Check, int]]:
    """Return the checks in a folder of the package, with their passes per example, cheap ones first."""
    return sorted(((check, passes) for check, passes, _ in _checks(folder)), key=lambda found: found[1])


def checks_passes(suite: Suite, classes: int, folder: Path = PLACE) -> float:
    """Return the approximate passes of all checks."""
    whole = suite_passes(suite, classes)
    return FEW * sum(passes + runs * whole for _, passes, runs in _checks(folder))


def check_passes(check: Check, suite: Suite, classes: int) -> float:
    """Return the approximate passes of one check."""
    module = import_module(check.__module__)
    return float(FEW * (module.PASSES + getattr(module, "RUNS", 0.0) * suite_passes(suite, classes)))


def _checks(folder: Path) -> list[tuple[Check, int, float]]:
    """Return the checks with their passes per example, and their number of runs of the suite."""
    modules = [
        import_module(f"unperturbed.examinations.{folder.name}.{file.stem}")
        for file in sorted(folder.glob("*.py"))
        if file.stem != "__init__"
    ]
    return [
        (getattr(module, module.__name__.rpartition(".")[2]), module.PASSES, getattr(module, "RUNS", 0.0))
        for module in modules
    ]
