"""Samples of a gate drawn again: from stored evaluations, and with verdicts of known properties."""

from pathlib import Path

import pytest
import torch
from studies.estimates import GATES, Population, copied, draw, limit, limit_rows, read_population, rows

from support.toys import linear, uniform
from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Interval, Outcome
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

STRONG = Suite("strong", (GradientAttack("strong", cross_entropy, PGD(steps=20)),), "a test")
IDLE = GradientAttack("idle", lambda logits, y: logits.sum(1) * 0, PGD(steps=1, random_start=False))
"""An attack that stays at x and breaks nothing."""


DEFAULT, NARROW = GATES.values()


def population(n: int, broken: set[int], missed: int = 0) -> Population:
    """Return n survivors, of which these break under the stronger suite; ids grow as they come nearer to a break."""
    outcome = Outcome(
        threat="Linf:0.1", n=n, clean_accuracy=Interval(1, 1, 1, n), seconds=0.0, warnings=(), environment={},
        suite="fast", note="", robust_accuracy=Interval(1, 0, 1, n), attacks=(), ties=0, unverified=0,
        counts={"survived": n, "broken": 0, "misclassified": 0, "unknown": 0},
        examples={"id": list(range(n)), "verdict": ["survived"] * n, "margin": [-1.0 + k / n for k in range(n)]},
    )  # fmt: skip
    return Population(outcome, frozenset(broken), frozenset(), missed, 600.0, 40.0, 8000.0)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.slow
@pytest.mark.parametrize("gate", [True, False])
def test_a_stored_population_has_the_verdicts_before_the_check(gate: bool, tmp_path: Path) -> None:
    model, x = linear(6, 3), uniform(60, 6)
    data, threat = (x, model(x).argmax(1)), Threat("Linf", 0.03)
    weak = Suite("weak", (IDLE,), "a test", gate=Gate(STRONG, share=0.1, least=6))
    checked = evaluate(model, data, threat, weak, out=tmp_path, gate=gate)
    full = evaluate(model, data, threat, STRONG, out=tmp_path)
    read = read_population(tmp_path, checked.suite, "strong")
    assert read.outcome.counts["survived"] == 60, "the idle attack breaks nothing"
    assert checked.counts["broken"] == (full.counts["broken"] if gate else 0)
    assert {*read.broken} == {k for k, verdict in enumerate(full.examples["verdict"]) if verdict == "broken"}
    assert read.truth(DEFAULT) == read.truth(NARROW) == full.robust_accuracy.value and not read.undecided
    assert read.missed == 0 == read.again, "no example was broken before the check"
    assert read.passes == checked.attacks[0].forwards / 60 and read.stronger_passes == full.attacks[0].forwards / 60


@pytest.mark.slow
def test_a_stored_population_counts_what_the_stronger_suite_misses(tmp_path: Path) -> None:
    """The idle attack as the stronger one: it leaves all that the first suite broke, for two forwards each."""
    model, x = linear(6, 3), uniform(60, 6)
    data, threat = (x, model(x).argmax(1)), Threat("Linf", 0.03)
    first = evaluate(model, data, threat, STRONG, out=tmp_path)
    evaluate(model, data, threat, Suite("idle", (IDLE,), "a test"), out=tmp_path)
    read = read_population(tmp_path, "strong", "idle")
    assert read.missed == first.counts["broken"] > 0 and read.again == 2 * read.missed / 60
    assert read.truth(DEFAULT) == first.robust_accuracy.value and read.truth(NARROW) == 1.0


def test_copies_have_ids_of_their_own_and_the_same_shares() -> None:
    one = population(40, {1, 39})
    many = copied(one, 5)
    assert many.outcome.n == 200 and len(set(many.outcome.examples["id"])) == 200
    assert len(many.broken) == 10 and many.truth(DEFAULT) == one.truth(DEFAULT) and 39 + 4 * 40 in many.broken
    assert copied(population(40, set(), missed=2), 5).missed == 10


@pytest.mark.long
@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says_and_is_unbiased() -> None:
    """Thirty breaks anywhere among 3,000; the nearest survivors are no different."""
    scattered = population(3000, set(torch.randperm(2900, generator=torch.Generator().manual_seed(0))[:30].tolist()))
    truth, draws = scattered.truth(NARROW), [draw(scattered, NARROW, seed) for seed in range(100)]
    covered = sum(one.estimate.low <= truth <= one.estimate.high for one in draws)
    assert covered >= 92
    assert all(one.estimate.high - one.estimate.low <= 0.01 + 1e-9 for one in draws)
    assert abs(sum(one.estimate.value for one in draws) / 100 - truth) < 0.001
    assert not any(one.whole for one in draws) and max(one.size for one in draws) > 350


def test_a_default_sample_with_many_breaks_has_all_attacked() -> None:
    masked = population(400, set(range(0, 400, 2)))
    one = draw(masked, DEFAULT, 0)
    assert one.whole and one.estimate == Interval(0.5, 0.5, 0.5, 400)


def test_a_row_of_a_network_without_further_breaks() -> None:
    default, narrow = map(cells, rows("at", population(1000, set()), 3))
    assert default[:5] == ["at", "1000", "1000", "0", "5%, 16 at least"] and default[5] == "50 (50)"
    assert default[8] == "100.0%" and default[10] == "+0.000" and default[11] == f"{0.6 / 8 + 0.05:.2f}"
    assert float(narrow[9]) <= 0.5 and narrow[5:7] == ["292 (292)", "100.0%"]
    assert narrow[11] == f"{0.64 / 8 + 0.292:.2f}", "the broken examples are attacked as well"


def test_350_survivors_suffice_where_nothing_breaks_however_many_there_are() -> None:
    assert [limit(int(0.9 * n), n, 0) <= 0.005 for n in (1000, 10_000, 1_000_000)] == [True] * 3
    assert limit(10_000, 10_000, 1) > 0.005 > limit(6_000, 10_000, 1)
    assert cells(next(limit_rows()))[:2] == ["100% of 10,000", f"{100 * limit(10_000, 10_000, 0):.2f}"]
