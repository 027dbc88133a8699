"""The check of a sample of survivors: who is drawn, what is estimated, and when all are attacked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.toys import linear, uniform
from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.carry import Carried
from unperturbed.evaluation.gate import (
    NEAREST,
    Sample,
    _records,
    attack_samples,
    estimated,
    first_sizes,
    sample_survivors,
)
from unperturbed.evaluation.stored import read_summary, stored_evaluations, with_examples
from unperturbed.findings import Interval, Outcome
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.by_name import suite_with_gate
from unperturbed.suites.fast import FAST
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.threat import Threat

STRONG = Suite("strong", (GradientAttack("strong", cross_entropy, PGD(steps=20)),), "a test")
IDLE = GradientAttack("idle", lambda logits, y: logits.sum(1) * 0, PGD(steps=1, random_start=False))
"""An attack that stays at x and breaks nothing."""
WEAK = Suite("weak", (IDLE,), "a test", gate=Gate(STRONG, share=0.1, least=6))
HONEST = Suite("honest", STRONG.attacks, "a test", gate=WEAK.gate)
THREAT = Threat("Linf", 0.03)


def outcome_of(survivors: int, others: int = 0) -> Outcome:
    """Return an outcome with so many survivors, whose ids grow as they come nearer to a break."""
    n = survivors + others
    verdicts = ["survived"] * survivors + ["broken"] * others
    return Outcome(
        threat="Linf:0.1", n=n, clean_accuracy=Interval(1, 1, 1, n), seconds=0.0, warnings=(), environment={},
        suite="fast", note="", robust_accuracy=Interval(survivors / n, 0, 1, n), attacks=(), ties=0, unverified=0,
        counts={"survived": survivors, "broken": others, "misclassified": 0, "unknown": 0},
        examples={"id": list(range(n)), "verdict": verdicts, "margin": [-1.0 + k / n for k in range(n)]},
    )  # fmt: skip


def data(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    x = uniform(n, 6)
    return x, linear(6, 3)(x).argmax(1)


def test_a_sample_does_not_depend_on_the_order_of_the_examples() -> None:
    outcome = outcome_of(200, 20)
    turned = {name: values[::-1] for name, values in outcome.examples.items()}
    sample, other = sample_survivors(outcome, 25, 35, 3), sample_survivors(replace(outcome, examples=turned), 25, 35, 3)
    assert sample == other and len(set(sample.ids)) == 60
    assert sample.nearest == tuple(range(199, 174, -1))
    assert set(sample.ids) | set(sample.others) == set(range(200))
    assert sample_survivors(outcome, 25, 35, 4).drawn != sample.drawn


def test_a_larger_sample_holds_the_smaller_one() -> None:
    outcome = outcome_of(200)
    sample = set(sample_survivors(outcome, 25, 35, 0).ids)
    assert set(sample_survivors(outcome, 25, 55, 0).ids) > sample
    assert set(sample_survivors(outcome, 33, 35, 0).ids) > sample
    assert len(sample_survivors(outcome, 25, 500, 0).ids) == 200 and sample_survivors(outcome, 25, 500, 0).others == ()


@pytest.mark.parametrize(("survivors", "expected"), [(3, 3), (100, 16), (1000, 50)])
def test_a_gate_takes_a_share_and_so_many_at_least(survivors: int, expected: int) -> None:
    nearest, drawn = first_sizes(survivors, 2 * survivors, Gate(STRONG))
    assert nearest + drawn == expected and nearest == min(expected // 2, NEAREST)


@pytest.mark.parametrize("n", [600, 1000, 5000, 20_000])
def test_at_most_350_survivors_make_half_a_point(n: int) -> None:
    """Where nothing in the sample breaks, and nine in ten survive."""
    survivors = int(0.9 * n)
    gate = Gate(STRONG, half_width=0.005)
    size = sum(first_sizes(survivors, n, gate))
    outcome = outcome_of(survivors, n - survivors)
    assert size <= 350
    sample, estimate = attack_samples(outcome, gate, 0, lambda ids: (set(), set()))
    assert estimate.value == estimate.high == survivors / n and (estimate.high - estimate.low) / 2 <= 0.005 + 1e-9
    assert len(sample.ids) == size


def test_more_of_the_nearest_are_in_a_sample_for_a_half_width_while_it_stays_at_350() -> None:
    gate = Gate(STRONG, half_width=0.005)
    sizes = {survivors: first_sizes(survivors, 10_000, gate) for survivors in (2000, 5000, 7000, 9000)}
    for survivors, (nearest, drawn) in sizes.items():
        assert nearest == max(NEAREST, min(survivors // 50, 350 - drawn)) and nearest + drawn <= 350
    assert sum(sizes[9000]) == 350 > sum(sizes[2000])


def test_the_estimate_is_unbiased_and_its_interval_covers() -> None:
    """The stronger suite breaks 12 of 300: 4 near a break, 8 anywhere. 200 samples of 80."""
    outcome = outcome_of(300, 100)
    broken = {299, 298, 290, 280, 250, 200, 171, 140, 99, 60, 31, 2}
    truth = (300 - len(broken)) / 400
    estimates = [
        estimated(outcome, sample, broken & set(sample.ids), set())
        for sample in (sample_survivors(outcome, 25, 55, seed) for seed in range(200))
    ]
    values = torch.tensor([estimate.value for estimate in estimates])
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / 200**0.5
    assert sum(estimate.low <= truth <= estimate.high for estimate in estimates) >= 0.94 * 200
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates)


def attack_of(broken: set[int]) -> Callable[[Sequence[int]], tuple[set[int], set[int]]]:
    """Return the attack that breaks these survivors alone."""
    return lambda ids: (broken.intersection(ids), set())


def test_the_nearest_are_attacked_until_the_last_eight_stand() -> None:
    """Of 400 survivors of 800 examples, 20 are sampled first: ids 390 to 399 are nearest to a break."""
    outcome, gate = outcome_of(400, 400), Gate(STRONG)
    for broken, nearest in (
        (set(), 10),
        ({399, 398}, 10),
        ({397}, 18),
        ({390}, 18),
        ({390, 389}, 26),
        ({390, 388, 375}, 34),
    ):
        sample, estimate = attack_samples(outcome, gate, 5, attack_of(broken))
        assert broken.isdisjoint(sample.drawn), "with this seed none of them is drawn"
        assert sample.nearest == tuple(range(399, 399 - nearest, -1)) and len(sample.drawn) == 10
        assert estimate.value == (400 - len(broken.intersection(sample.nearest))) / 800


def test_the_nearest_are_not_attacked_further_where_too_many_break() -> None:
    outcome, gate = outcome_of(400, 400), Gate(STRONG)
    sample, _ = attack_samples(outcome, gate, 0, attack_of(set(range(391, 400))))
    assert len(sample.ids) == 20, "9 of 800 are more than 1%"
    sample, _ = attack_samples(outcome, gate, 0, attack_of({399, sample.drawn[0]}))
    assert len(sample.ids) == 20, "one of 10 drawn ones means 39 of the 390"


def test_the_estimate_stays_unbiased_where_the_nearest_grow() -> None:
    """The stronger suite breaks 20 of the nearest of 300, which grow from 25 to 113, and 4 others."""
    outcome, gate = outcome_of(300, 29_700), Gate(STRONG, share=0.2)
    broken = {*range(200, 300, 5)} | {5, 30, 55, 80}
    drawn = [attack_samples(outcome, gate, seed, attack_of(broken)) for seed in range(300)]
    assert {len(sample.nearest) for sample, _ in drawn} == {113}
    values = torch.tensor([estimate.value for _, estimate in drawn])
    truth = (300 - len(broken)) / 30_000
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / 300**0.5
    assert sum(estimate.low <= truth <= estimate.high for _, estimate in drawn) >= 0.94 * 300


def test_the_undecided_widen_the_interval_downwards() -> None:
    outcome, sample = outcome_of(50), Sample((49, 48), tuple(range(20)), tuple(range(20, 48)))
    sure, unsure = estimated(outcome, sample, {3}, set()), estimated(outcome, sample, {3}, {4, 49})
    assert unsure.low < sure.low and (unsure.value, unsure.high) == (sure.value, sure.high)


@pytest.mark.slow
def test_a_suite_that_misses_breaks_has_all_survivors_attacked() -> None:
    model, given = linear(6, 3), data()
    strong, weak = evaluate(model, given, THREAT, STRONG), evaluate(model, given, THREAT, WEAK)
    assert weak.gate is not None and "it broke" in weak.gate.reason and weak.gate.sampled == 6
    assert weak.counts == strong.counts and weak.examples["verdict"] == strong.examples["verdict"]
    assert weak.robust_accuracy == strong.robust_accuracy
    assert weak.gate.estimate.low == weak.gate.estimate.high == weak.robust_accuracy.value
    assert [record.name for record in weak.attacks] == ["idle", "strong: strong"]
    assert weak.attacks[-1].robust_after == weak.robust_accuracy.value
    assert len(weak.adversarial) == weak.counts["broken"]


def test_a_suite_that_misses_nothing_stays_with_its_sample() -> None:
    outcome = evaluate(linear(6, 3), data(), THREAT, HONEST)
    assert outcome.gate is not None and outcome.gate.reason == "" and outcome.gate.broken == 0
    assert outcome.gate.estimate.value == outcome.robust_accuracy.value == outcome.gate.estimate.high
    assert outcome.gate.estimate.low < outcome.robust_accuracy.value
    assert "0 of 6 survivors" in str(outcome.gate)


@pytest.mark.slow
def test_a_doubt_has_all_survivors_attacked() -> None:
    """Straight-through rounding of the logits: the gradient does not predict what happens."""

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.inner(x)
            return logits.detach() + 0 * logits

    outcome = evaluate(Flat(), data(), THREAT, HONEST)
    assert outcome.doubts and outcome.gate is not None
    assert outcome.gate.reason.startswith(outcome.doubts[0])
    assert outcome.gate.estimate.value == outcome.robust_accuracy.value


@pytest.mark.slow
def test_without_its_gate_nothing_is_checked_and_name_and_note_say_so(tmp_path: Path) -> None:
    """The checked evaluation in the same folder stays."""
    evaluate(linear(6, 3), data(), THREAT, WEAK, out=tmp_path)
    outcome = evaluate(linear(6, 3), data(), THREAT, WEAK, gate=False, out=tmp_path)
    assert outcome.suite == "weak-unchecked" and read_summary(tmp_path / "weak.json").gate is not None
    assert (
        outcome.gate is None and outcome.counts["broken"] == 0 and "check of survivors by strong is off" in str(outcome)
    )


@pytest.mark.slow
def test_a_stored_evaluation_is_one_with_its_check(tmp_path: Path) -> None:
    model, given, folder = linear(6, 3), data(), tmp_path / "evaluation" / "all"
    first = evaluate(model, given, THREAT, WEAK, out=folder)
    stored = stored_evaluations(tmp_path)
    assert list(stored) == [folder / "weak.json"], "the parts of the check are no evaluations of their own"
    read = with_examples(folder / "weak.json", stored[folder / "weak.json"])
    assert read.gate == first.gate and read.counts == first.counts
    assert read.examples["verdict"] == first.examples["verdict"] and read.examples["attack"] == first.examples["attack"]
    again = evaluate(model, given, THREAT, WEAK, out=folder)
    assert again.json() | {"warnings": [], "seconds": 0} == first.json() | {"warnings": [], "seconds": 0}
    assert sum("Loaded from" in text for text in again.warnings) == 1


@pytest.mark.slow
def test_an_estimate_grows_its_sample(tmp_path: Path) -> None:
    model, given = linear(6, 3), data(200)
    wide, narrow = (
        evaluate(model, given, THREAT, HONEST, estimate=half_width, out=tmp_path / str(half_width)).gate
        for half_width in (6.0, 2.0)
    )
    assert wide is not None and narrow is not None and narrow.sampled > wide.sampled
    assert (narrow.estimate.high - narrow.estimate.low) / 2 <= 0.02
    (summary,) = (tmp_path / "2.0").glob("honest.json")
    assert read_summary(summary).gate == narrow and narrow.half_width == 0.02


@pytest.mark.slow
def test_an_interval_is_that_of_the_stronger_suite_alone() -> None:
    """It breaks nothing, so that alone it leaves every correct example, whatever the suite itself breaks."""
    suite = Suite("honest", STRONG.attacks, "a test", gate=Gate(Suite("strong", (IDLE,), "a test"), half_width=0.02))
    model, given = linear(6, 3), data()
    outcome, alone = evaluate(model, given, THREAT, suite), evaluate(model, given, THREAT, STRONG)
    assert outcome.gate is not None and outcome.counts == alone.counts and outcome.counts["broken"] > 0
    assert outcome.gate.estimate.value == outcome.gate.estimate.high == 1.0 == outcome.clean_accuracy.value
    assert 0.96 <= outcome.gate.estimate.low < 1.0
    assert str(outcome.gate).endswith(f"; alone it would leave 100.0% [{outcome.gate.estimate.low:.1%}, 100.0%].")
    queries = sum(record.forwards for record in outcome.attacks if record.name.startswith("strong: "))
    assert queries == 2 * (outcome.gate.sampled + outcome.counts["broken"])


def test_an_estimate_of_standard_is_that_of_fast() -> None:
    assert suite_with_gate(STANDARD, True, 0.5) == suite_with_gate(FAST, True, 0.5)
    assert suite_with_gate(STANDARD, True, 0.5).gate == Gate(STANDARD, half_width=0.005)
    assert suite_with_gate(FAST, True, None) is FAST
    assert suite_with_gate(FAST, False, None).gate is None and suite_with_gate(PGD_SUITE, False, None) is PGD_SUITE


@pytest.mark.parametrize(
    ("suite", "gate", "estimate", "message"),
    [
        (PGD_SUITE, True, 0.5, "use the suite fast, and not pgd"),
        (FAST, False, 0.5, "without its gate"),
        (FAST, True, 0.0, "estimate is 0.0"),
        (FAST, True, 60.0, "estimate is 60.0"),
    ],
)
def test_estimates_that_cannot_be_are_refused(suite: Suite, gate: bool, estimate: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        suite_with_gate(suite, gate, estimate)


def test_breaks_at_points_of_smaller_radii_have_a_record() -> None:
    outcome = outcome_of(10)
    attacks = [STANDARD.attacks[0].label, f"{STANDARD.attacks[0].label} under Linf:0.05"]
    points = Carried(torch.zeros(2, 3), [{"attack": name} for name in attacks])
    records = _records(outcome, STANDARD, [], points)
    assert [record.broken for record in records] == [1, 0, 0, 0, 1]
    assert records[-1].name == "standard: points of smaller radii" and records[-1].robust_after == 0.8
