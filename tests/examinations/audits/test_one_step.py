"""A network trained against one long step is told from an honest one, whether defended or not."""

import pytest
import torch

from support.planted import EPS, examples, fit, robust
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations.audited import Audited
from unperturbed.examinations.audits.one_step import one_step
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat
from unperturbed.types import Batch

pytestmark = pytest.mark.slow


def audited(model: torch.nn.Module, eps: float) -> Audited:
    x, y = examples(100)
    batch = Batch(x, y, torch.arange(100))
    return Audited(model, batch, Threat("Linf", eps), 10, 0, 128, find_suite("pgd"), evaluate)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("seed", [5, 6])
def test_catastrophic_overfitting_is_named(seed: int) -> None:
    """The bounds of the check were set on networks of other seeds."""
    collapsed = one_step(audited(fit(0.3, 1, 25, step_size=1.0, random_start=False, seed=seed), 0.3))
    assert collapsed.verdict == "fail" and collapsed.causes == ("catastrophic overfitting",), collapsed.measured


@pytest.mark.long
def test_honest_networks_are_not() -> None:
    for model in (robust(7), fit(0.0, 0, 6, seed=8)):
        found = one_step(audited(model, EPS))
        assert found.verdict == "pass" and found.causes == (), found.measured
