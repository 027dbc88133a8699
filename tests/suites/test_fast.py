"""The suite `fast`: climbs and a random search in every norm, with a search for the nearest break in L2 and L1."""

from collections.abc import Callable
from importlib import import_module
from inspect import signature

import pytest
import torch

import unperturbed as un
from support.toys import linear, uniform
from unperturbed.attacks.fab import FAB
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.threats import evaluate_threats
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.fast import FAST
from unperturbed.threat import Threat
from unperturbed.types import Norm


@pytest.mark.parametrize("function", [un.evaluate, evaluate_threats, un.sweep, un.attack])
def test_it_is_the_default_in_python(function: Callable[..., object]) -> None:
    assert signature(function).parameters["suite"].default == "fast"


def test_it_is_the_default_of_the_commands_that_evaluate() -> None:
    """A matrix has no check of survivors, and an audit has a budget: both begin with `pgd`."""
    suites = {
        name: import_module(f"unperturbed.cli.{name}").parser().get_default("suite")
        for name in ("evaluate", "sweep", "transfer", "audit")
    }
    assert suites == {"evaluate": "fast", "sweep": "fast", "transfer": "pgd", "audit": "pgd"}


@pytest.mark.parametrize(("norm", "searches"), [("Linf", 0), ("L2", 1), ("L1", 1)])
def test_every_norm_has_climbs_and_a_random_search_and_the_round_ones_the_nearest_break(
    norm: Norm, searches: int
) -> None:
    attacks = FAST.against(norm, 10).attacks
    assert sum(isinstance(attack, FAB) for attack in attacks) == searches
    assert {"APGD-CE", "APGD-T"} < {attack.label for attack in attacks} and attacks[-1].needs_gradient is False
    assert isinstance(attacks[0], FAB) == bool(searches), "else its breaks would cast doubt on the climbs before it"
    assert FAST.gate is not None and FAST.gate.suite is STANDARD


@pytest.mark.long
@pytest.mark.slow
def test_an_evaluation_checks_its_survivors() -> None:
    x, model = uniform(30, 6), linear(6, 3)
    outcome = evaluate(model, (x, model(x).argmax(1)), Threat("Linf", 0.02), "fast")
    assert outcome.suite == "fast" and outcome.gate is not None
    assert outcome.gate.survivors >= outcome.counts["survived"] and outcome.gate.sampled == min(
        16, outcome.gate.survivors
    )


@pytest.mark.long
@pytest.mark.slow
def test_its_verdict_of_an_example_does_not_depend_on_the_others() -> None:
    x, model = uniform(24, 6), linear(6, 3)
    y, threat = model(x).argmax(1), Threat("L2", 0.05)
    whole = evaluate(model, (x, y), threat, "fast", batch_size=8, gate=False)
    few = evaluate(model, (x[:9], y[:9]), threat, "fast", batch_size=8, gate=False)
    assert few.examples["verdict"] == whole.examples["verdict"][:9]
    assert torch.tensor(few.examples["margin"]).allclose(torch.tensor(whole.examples["margin"][:9]), atol=1e-5)
