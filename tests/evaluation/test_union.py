"""The worst case over threats: by example, matched by id, and only of one network and its data."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.toys import QUICK, Function, blobs, linear, uniform
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.split import array_split, select
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.union import union
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

VERDICTS = ("misclassified", "broken", "survived", "unknown")
THREATS = (Threat("Linf", 0.03), Threat("L2", 0.065), Threat("L1", 0.12))


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [evaluate(linear(6, 3), blobs(60), threat, QUICK) for threat in THREATS]


def with_verdicts(outcome: Outcome, verdicts: list[str], ids: list[int] | None = None) -> Outcome:
    """Return an outcome with these verdicts, its counts aside."""
    columns: dict[str, list[Any]] = {
        "id": ids or list(range(len(verdicts))),
        "label": [0] * len(verdicts),
        "verdict": verdicts,
        "clean_margin": [0.5 if verdict == "misclassified" else -0.5 for verdict in verdicts],
    }
    return replace(outcome, examples=columns, n=len(verdicts))


@pytest.mark.slow
def test_nothing_survives_that_was_broken_anywhere(outcomes: list[Outcome]) -> None:
    worst = union(outcomes)
    tables = [outcome.examples["verdict"] for outcome in outcomes]
    assert worst.counts["survived"] == sum(set(each) == {"survived"} for each in zip(*tables, strict=True))
    assert 0 < worst.counts["survived"] <= min(outcome.counts["survived"] for outcome in outcomes)
    assert worst.counts["misclassified"] == outcomes[0].counts["misclassified"] and worst.n == 60
    assert worst.clean_accuracy == outcomes[0].clean_accuracy
    for row, names in enumerate(worst.examples["broken_under"]):
        assert names == [str(t) for t, table in zip(THREATS, tables, strict=True) if table[row] == "broken"]
    json.dumps(worst.json(), allow_nan=False)


def test_one_outcome_is_its_own_worst_case(outcomes: list[Outcome]) -> None:
    worst, one = union(outcomes[:1]), outcomes[0]
    assert worst.robust_accuracy == one.robust_accuracy and worst.examples["verdict"] == one.examples["verdict"]
    assert worst.counts == one.counts and worst.threat == one.threat


@pytest.mark.slow
@given(
    wrong=st.lists(st.booleans(), min_size=6, max_size=6),
    tables=st.lists(st.lists(st.sampled_from(VERDICTS[1:]), min_size=6, max_size=6), min_size=1, max_size=4),
    seed=st.integers(0, 100),
)
def test_the_worst_verdict_counts(
    outcomes: list[Outcome], wrong: list[bool], tables: list[list[str]], seed: int
) -> None:
    tables = [["misclassified" if w else v for w, v in zip(wrong, table, strict=True)] for table in tables]
    made = [with_verdicts(outcomes[0], table) for table in tables]
    worst = union(made)
    for row, verdict in enumerate(worst.examples["verdict"]):
        seen = {table[row] for table in tables}
        expected = "broken" if "broken" in seen else "unknown" if "unknown" in seen else "survived"
        assert verdict == ("misclassified" if wrong[row] else expected)
    survived, unknown = worst.counts["survived"], worst.counts["unknown"]
    assert worst.robust_accuracy == wilson(survived, 6, survived + unknown)
    assert sum(worst.counts.values()) == 6

    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed)).tolist()
    last = with_verdicts(made[-1], [tables[-1][i] for i in order], order)
    shuffled = union([*made[:-1], last])
    assert shuffled.counts == worst.counts
    if len(made) > 1:
        assert shuffled.examples["verdict"] == worst.examples["verdict"]


def test_what_is_not_finite_without_an_attack_is_not_known_to_be_wrong(outcomes: list[Outcome]) -> None:
    verdicts = ["unknown", "survived", "misclassified"]
    columns = with_verdicts(outcomes[0], verdicts).examples | {"clean_margin": [float("nan"), -1.0, 1.0]}
    worst = union([replace(outcomes[0], examples=columns, n=3)] * 2)
    assert worst.clean_accuracy == wilson(1, 3, 2) and worst.robust_accuracy == wilson(1, 3, 2)


def test_a_selection_in_another_order_is_matched_by_id(outcomes: list[Outcome]) -> None:
    ids = torch.arange(60).flip(0)
    turned = evaluate(linear(6, 3), select(array_split(*blobs(60)), ids), THREATS[1], QUICK)
    assert union([outcomes[0], turned]).counts == union(outcomes[:2]).counts


@pytest.mark.slow
def test_outcomes_of_different_things_are_refused(outcomes: list[Outcome]) -> None:
    one, (x, y) = outcomes[0], blobs(60)
    with pytest.raises(InputError, match="at least one"):
        union([])
    with pytest.raises(InputError, match="different weights"):
        union([one, evaluate(linear(6, 3, seed=1), (x, y), THREATS[1], QUICK)])
    for other in ((x[:59], y[:59]), (x, (y + 1) % 3), (x.flip(1), y)):
        with pytest.raises(InputError, match="different data"):
            union([one, evaluate(linear(6, 3), other, THREATS[1], QUICK)])


def test_another_batch_size_is_the_same_thing(outcomes: list[Outcome]) -> None:
    small = evaluate(linear(6, 3), blobs(60), THREATS[1], QUICK, batch_size=8)
    assert union([outcomes[0], small]).counts == union(outcomes[:2]).counts


@pytest.mark.slow
def test_of_networks_that_draw_random_numbers_it_is_the_mean_at_the_worst_threat(outcomes: list[Outcome]) -> None:
    """Right in seven draws of ten, everywhere: most draws are right, and yet not all of the examples are robust."""

    def logits(x: Inputs) -> Logits:
        lead = torch.where(torch.rand(len(x)) < 0.7, 1.0, -1.0) + 1e-3 * x.sum(1)
        return torch.stack([lead, -lead], dim=1)

    means = Suite("means", (GradientAttack("margin", margin, PGD(steps=2), draws=2),), "a test")
    data = uniform(100, 6), torch.zeros(100, dtype=torch.int64)
    made = [evaluate(Function(logits), data, threat, means) for threat in THREATS[:2]]
    worst = union(made)
    assert worst.counts["survived"] == 100 and abs(worst.clean_accuracy.value - 0.7) < 0.02
    assert 0.6 < worst.robust_accuracy.value <= min(each.robust_accuracy.value for each in made)
    assert worst.robust_accuracy.low < 0.7 < worst.robust_accuracy.high
    assert union(made[:1]).robust_accuracy == made[0].robust_accuracy

    environment = {
        **outcomes[0].environment,
        **{key: made[0].environment[key] for key in ("weights", "data", "network")},
    }
    with pytest.raises(InputError, match="one is a mean over draws and the other is not"):
        union([made[0], replace(outcomes[0], environment=environment)])
