"""The headline of planted defences is the robust accuracy that a long attack finds which knows the defence."""

import pytest
import torch

from support.adaptive import robust_accuracy
from support.hidden import hidden
from support.planted import EPS, Averaged, Small, examples, other_function, robust
from support.truths import truths
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations.audit import audit
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

THREAT, N = Threat("Linf", EPS), 50
SHORT = Suite("short", (GradientAttack("PGD-margin", margin, PGD(steps=10), restarts=2),), "a test")
NAMES = (*other_function(Small()), *hidden(Small()))


@pytest.fixture(scope="module")
def net() -> Small:
    model = robust()
    for weight in model.parameters():
        weight.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def undefended(net: Small) -> float:
    return evaluate(net, examples(N), THREAT, "standard").robust_accuracy.value


def truth_of(name: str, net: Small, undefended: float) -> float:
    """Return the truth of a defence; that of the undefended network where the answers are the same."""
    x, y = examples(N)
    if name != "average over calls":
        return truths(net)[name](x, y) if name in truths(net) else undefended
    model = Averaged(net)
    with torch.no_grad():
        for _ in range(3):
            model(x)
    shift = model.average
    return robust_accuracy(lambda z: net(z) - shift, [lambda z: net(z) - shift], x, y, EPS)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_headline_is_within_four_points_of_the_truth_and_the_cause_is_named(
    net: Small, undefended: float, name: str
) -> None:
    model, cause = {**other_function(net), **hidden(net)}[name]
    found = audit(model, examples(N), THREAT, SHORT, examples=N, budget=1000)
    truth = truth_of(name, net, undefended)
    assert abs(found.headline.value - truth) <= 0.041, f"{found}; truth {truth:.3f}"
    assert cause in found.causes and found.verdict in ("suspicious", "obfuscated"), str(found)
