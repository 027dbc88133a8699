"""An order of attacks from stored evaluations: the cheapest one, and what the stores say about it."""

from itertools import permutations
from pathlib import Path

import pytest
import torch

from support.toys import linear, uniform
from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.suggestion import SuggestedOrder, Trials, _ordered, suggest_order
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

THREAT = Threat("Linf", 0.03)
IDLE = GradientAttack("idle", lambda logits, y: logits.sum(1) * 0, PGD(steps=1, random_start=False))
"""An attack that stays at x and breaks nothing."""
SHORT = GradientAttack("short", cross_entropy, PGD(steps=3))
LONG = GradientAttack("long", cross_entropy, PGD(steps=60))


def trials(name: str, broken: range, passes: int, attacked: range = range(100)) -> Trials:
    examples, breaks = (frozenset(("net", "Linf:0.1", number) for number in numbers) for numbers in (attacked, broken))
    return Trials(name, name, "made-up", examples, breaks, len(examples), passes * len(examples))


def cost(order: tuple[Trials, ...]) -> float:
    """Return the passes of an order on all examples, each of which leaves when it breaks."""
    standing, passes = order[0].attacked, 0.0
    for attack in order:
        passes += len(standing) * attack.passes_each
        standing -= attack.broken
    return passes


MADE_UP = (
    trials("dear", range(0, 90), 400),
    trials("cheap", range(0, 60), 10),
    trials("other", range(50, 80), 40),
    trials("useless", range(0, 55), 30),
    trials("rest", range(85, 95), 900),
)


def names(order: SuggestedOrder) -> list[str]:
    return [step.attack for step in order.steps]


def test_the_order_is_the_cheapest_of_those_that_break_as_many() -> None:
    order = _ordered(list(MADE_UP), 5)
    assert names(order) == ["cheap", "other", "dear", "rest"] and order.standing == 5
    assert order.idle == ("useless of made-up",) and order.evaluations == 5
    assert [step.broken for step in order.steps] == [60, 20, 10, 5]
    assert [step.standing for step in order.steps] == [100, 40, 20, 10]
    kept = [attack for attack in MADE_UP if attack.attack != "useless"]
    best = min(permutations(kept), key=cost)
    assert [attack.attack for attack in best] == names(order)
    assert all(cost((*best, MADE_UP[3])) <= cost(other) for other in permutations(MADE_UP))


@pytest.mark.slow
def test_the_order_of_the_stores_makes_no_difference() -> None:
    assert all(names(_ordered(list(other), 5)) == names(_ordered(list(MADE_UP), 5)) for other in permutations(MADE_UP))


def test_an_attack_is_judged_on_the_examples_on_which_it_ran() -> None:
    """It breaks half of those, where the other one breaks a third of all at the same cost."""
    order = _ordered([trials("everywhere", range(30), 10), trials("here", range(30, 45), 10, range(30, 60))], 2)
    assert names(order) == ["here", "everywhere"] and order.steps[0].attacked == 30 and order.standing == 55


def evaluated(folder: Path, *attacks: GradientAttack, gate: Gate | None = None) -> Path:
    x, model = uniform(60, 6), linear(6, 3)
    suite = Suite("_".join(attack.label for attack in attacks), attacks, "a test", gate=gate)
    evaluate(model, (x, model(x).argmax(1)), THREAT, suite, out=folder / "evaluation")
    return folder


@pytest.mark.slow
def test_stores_of_single_attacks_give_breaks_and_passes(tmp_path: Path) -> None:
    for attack in (LONG, SHORT, IDLE):
        evaluated(tmp_path, attack)
    order = suggest_order([tmp_path])
    first = order.steps[0]
    assert (first.attack, first.standing, first.attacked) == ("short", 60, 60) and order.evaluations == 3
    assert 0 < first.broken and 1 <= first.passes <= 4 and first.name == ""
    assert "idle of idle" in order.idle
    assert order.standing == 60 - sum(step.broken for step in order.steps)


def test_in_a_suite_an_attack_ran_on_what_the_earlier_ones_left(tmp_path: Path) -> None:
    alone = suggest_order([evaluated(tmp_path / "alone", SHORT)])
    both = suggest_order([evaluated(tmp_path / "both", IDLE, SHORT, LONG)])
    assert both.steps[0].broken == alone.steps[0].broken and both.steps[0].attacked == 60
    assert "long of idle_short_long" in both.idle or both.steps[1].standing == 60 - both.steps[0].broken


@pytest.mark.slow
def test_the_check_of_survivors_is_no_attack_of_the_suite(tmp_path: Path) -> None:
    stronger = Suite("strong", (LONG,), "a test")
    checked = evaluated(tmp_path, IDLE, gate=Gate(stronger, least=30))
    assert suggest_order([checked]).steps == () and suggest_order([checked]).standing == 60


def test_attacks_of_built_in_suites_are_one_with_those_by_name(tmp_path: Path) -> None:
    x, model = uniform(8, 6), linear(6, 3)
    data = (x, model(x).argmax(1))
    for suite in ("pgd", "pgd-margin,pgd-ce"):
        evaluate(model, data, Threat("Linf", 0.2), suite, out=tmp_path / "evaluation")
    order = suggest_order([tmp_path])
    assert order.evaluations == 2 and len(order.steps) + len(order.idle) == 2
    assert [step.name for step in order.steps] == [step.attack.lower() for step in order.steps]


def test_evaluations_under_another_threat_are_left_out(tmp_path: Path) -> None:
    evaluated(tmp_path, SHORT)
    assert suggest_order([tmp_path], "Linf:0.03").evaluations == 1
    with pytest.raises(InputError, match="In no evaluation of the runs under L2:1"):
        suggest_order([tmp_path], "L2:1")
    with pytest.raises(InputError, match="give an evaluated run folder"):
        suggest_order([])
    with pytest.raises(InputError, match="no finished evaluation"):
        suggest_order([tmp_path / "evaluation"])


def test_examples_of_two_networks_are_different_examples(tmp_path: Path) -> None:
    x = uniform(20, 6)
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        model = torch.nn.Linear(6, 3)
        suite = Suite("short", (SHORT,), "a test")
        evaluate(model, (x, model(x).argmax(1)), THREAT, suite, out=tmp_path / name / "evaluation")
    both = suggest_order([tmp_path / "a", tmp_path / "b"])
    assert both.steps[0].standing == 40
    assert both.steps[0].broken == sum(suggest_order([tmp_path / name]).steps[0].broken for name in "ab")
