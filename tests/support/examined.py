"""Subjects for tests of diagnostics: small networks, and numbers of a finding by name."""

import torch
from torch import Tensor, nn

from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels

WIDE = Threat("Linf", 0.1, (-100.0, 100.0))
"""In so wide a box, nothing is cut off."""


def batch_of(x: Inputs, y: Labels, first: int = 0) -> Batch:
    return Batch(x, y, torch.arange(first, first + len(y)))


def subject(
    model: nn.Module,
    x: Inputs,
    y: Labels,
    train: tuple[Inputs, Labels] | None = None,
    threat: Threat = WIDE,
    classes: int = 3,
    batch_size: int = 16,
) -> Subject:
    """Return a subject; test examples have ids from 0 on, training examples from 1000 on."""
    examples = None if train is None else batch_of(*train, first=1000)
    return Subject("a test", model, batch_of(x, y), examples, threat, classes, batch_size=batch_size)


def number(finding: Finding, name: str) -> Number:
    (found,) = (each for each in finding.numbers if each.name == name)
    return found


def distribution(finding: Finding, name: str) -> Distribution:
    (found,) = (each for each in finding.distributions if each.name == name)
    return found


def names(finding: Finding) -> list[str]:
    every = (*finding.numbers, *finding.distributions, *finding.lines)
    return [each.name for each in every]


class NaNAt(nn.Module):
    """Another network, with NaN for the first logit of one input."""

    def __init__(self, inner: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.inner, self.x = inner, x

    def forward(self, x: Tensor) -> Tensor:
        hit = (x == self.x).flatten(1).all(dim=1, keepdim=True)
        logits: Tensor = self.inner(x)
        return torch.cat([logits[:, :1].masked_fill(hit, torch.nan), logits[:, 1:]], dim=1)


def all_finite(finding: Finding) -> bool:
    """Tell whether every number and value of a finding is finite, and each number lies in its interval."""
    values = [value for each in finding.distributions for value in each.values]
    values += [each.value for each in finding.numbers]
    inside = all(
        each.low is None or (each.high is not None and each.low <= each.value <= each.high) for each in finding.numbers
    )
    matched = all(len(each.values) == len(each.ids) for each in finding.distributions)
    return bool(torch.tensor(values, dtype=torch.float64).isfinite().all()) and inside and matched
