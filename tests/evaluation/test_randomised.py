"""Networks that draw random numbers: means over draws against truths, and intervals that cover them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor, nn

from support.toys import QUICK, Function, linear, mlp, uniform
from unperturbed.attacks.eot import RandomTransform
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.randomised import (
    DRAWS,
    attack_random_block,
    draws_of,
    draws_random_numbers,
    look_again,
    margins_over_draws,
    random_block,
    randomness_warnings,
)
from unperturbed.evaluation.search import Networks
from unperturbed.findings import Outcome
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.statistics.intervals import wilson, wilson_over_draws
from unperturbed.suites.autoattack import RAND, STANDARD
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits

MEANS = Suite(
    "rand",
    (
        GradientAttack("CE", cross_entropy, PGD(steps=3), draws=8),
        GradientAttack("margin", margin, PGD(steps=3), draws=8),
    ),
    "a test",
)
"""The suite `rand` in little."""
THREAT = Threat("Linf", 0.05)
WEIGHT = torch.tensor([1.0, -1.0, 0.5, 0.5, -0.5, 1.0])
SIGMA = 0.4


def score(x: Inputs) -> Tensor:
    return (x - 0.5) @ WEIGHT


def noisy(shared: bool) -> nn.Module:
    """Class 1 where score + SIGMA * N(0, 1) is above 0; one number an example, or one a forward."""

    def logits(x: Inputs) -> Logits:
        value = score(x) + SIGMA * torch.randn(1 if shared else len(x))
        return torch.stack([-value, value], dim=1)

    return Function(logits)


def labelled(n: int, seed: int = 0) -> tuple[Inputs, Tensor]:
    """Return inputs away from the bounds, so that the ball is whole, and their labels."""
    x = uniform(n, 6, seed, 0.1, 0.9)
    return x, (score(x) > 0).long()


def truth(x: Inputs, eps: float) -> float:
    """Return the mean of P(right) at the worst point: Phi((|score| - eps * |w|_1) / SIGMA)."""
    lead = score(x).abs() - eps * WEIGHT.abs().sum()
    return float(torch.special.ndtr(lead.double() / SIGMA).mean())


# Which networks draw


def of_its_own(x: Inputs, generator: torch.Generator = torch.Generator()) -> Logits:  # noqa: B008
    return x[:, :2] + torch.rand(len(x), 2, generator=generator)


@pytest.mark.parametrize(("model", "draws"), [
    (linear(6), False), (mlp(6, 3, dropout=0.5), False), (Function(lambda x: x[:, :2] * torch.nan), False),
    (noisy(False), True), (noisy(True), True), (RandomTransform(lambda x: x + torch.randn_like(x), linear(6)), True),
    (Function(of_its_own), True), (Function(lambda x: x[:, :2] + torch.from_numpy(np.random.rand(2)).float()), True),
])  # fmt: skip
def test_a_network_that_draws_random_numbers_is_known_by_it(model: nn.Module, draws: bool) -> None:
    before = torch.get_rng_state()
    assert draws_random_numbers(model.eval(), uniform(20, 6), 8) == draws
    assert torch.equal(torch.get_rng_state(), before)


def test_the_wrong_suite_is_told_either_way() -> None:
    assert draws_of(RAND) == 20 and draws_of(STANDARD) == draws_of(QUICK) == 1
    assert "use rand" in randomness_warnings(QUICK, True)[0] and not randomness_warnings(QUICK, False)
    assert "use standard" in randomness_warnings(MEANS, False)[0] and not randomness_warnings(MEANS, True)


# The interval


def drawn(regime: str, n: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return which (examples, draws) are right, where the share that is right is 0.8 over both."""
    if regime == "examples":
        return np.repeat(random.random((n, 1)) < 0.8, draws, axis=1)
    if regime == "both":  # P(right) of an example is Beta(4, 1), and draws are independent
        return np.asarray(random.random((n, draws)) < random.beta(4, 1, (n, 1)))
    shared = random.choice([0.6, 1.0], (1, draws)) if regime == "two kinds of draws" else random.uniform(0.6, 1, draws)
    return np.asarray(random.random((n, draws)) < shared)


@pytest.mark.parametrize(("regime", "n", "draws"), [
    ("examples", 200, 10), ("both", 200, 10), ("draws", 1000, 10), ("two kinds of draws", 300, DRAWS),
])  # fmt: skip
def test_the_interval_covers_examples_and_draws(regime: str, n: int, draws: int) -> None:
    random = np.random.default_rng(0)
    covered = covered_by_wilson = 0
    for _ in range(200):
        right = drawn(regime, n, draws, random)
        found = wilson_over_draws(right, np.zeros_like(right))
        assert found.value == pytest.approx(right.mean()) and found.n == n
        plain = wilson(round(n * found.value), n)
        covered += found.low <= 0.8 <= found.high
        covered_by_wilson += plain.low <= 0.8 <= plain.high
    assert covered >= 0.93 * 200
    if regime == "draws":
        assert covered <= 0.99 * 200 and covered_by_wilson < 0.7 * 200, "the number of examples does not help"


@pytest.mark.parametrize("successes", [0, 1, 50, 99, 100])
def test_without_a_difference_between_draws_it_is_wilsons(successes: int) -> None:
    right = np.repeat(np.arange(100)[:, None] < successes, 7, axis=1)
    unknown = np.repeat(np.arange(100)[:, None] >= 97, 7, axis=1)
    for lost, most in ((np.zeros_like(right), successes), (unknown, min(100, max(successes, successes + 3)))):
        if most <= successes or successes < 97:
            found, plain = wilson_over_draws(right, lost & ~right), wilson(successes, 100, most)
            assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-9)


def test_a_single_draw_has_no_interval() -> None:
    with pytest.raises(ValueError, match="1 draw gives no information"):
        wilson_over_draws(np.ones((5, 1), bool), np.zeros((5, 1), bool))


# Draws


def test_draws_are_those_of_the_seed_and_the_number_whatever_was_drawn_before() -> None:
    x, y = labelled(20)
    batch, model = Batch(x, y, torch.arange(20)), noisy(False)

    def look(draws: range, seed: int = 0) -> Tensor:
        torch.rand(3)
        before = torch.get_rng_state()
        margins = margins_over_draws(model, batch, x, draws, seed, 8)
        assert torch.equal(torch.get_rng_state(), before)
        return margins

    first = look(range(5))
    assert (
        first.shape == (20, 5) and torch.equal(first, look(range(5))) and torch.equal(first[:, 2:], look(range(2, 5)))
    )
    assert len(first[0].unique()) == 5 and not (first == look(range(5), seed=1)).any()


# Accuracies


@pytest.mark.slow
def test_a_network_right_nine_times_in_ten_is_ninety_per_cent_robust() -> None:
    """For every input, an evaluation that one unlucky draw decides says far less."""

    def nine_in_ten(x: Inputs) -> Logits:
        right = (torch.rand(len(x)) < 0.9).float() + 0 * x.sum(1)
        return torch.stack([2 * right, 2 - 2 * right], dim=1)

    data = uniform(300, 6), torch.zeros(300, dtype=torch.int64)
    outcome = evaluate(Function(nine_in_ten), data, THREAT, MEANS)
    for found in (outcome.clean_accuracy, outcome.robust_accuracy):
        assert found.low < 0.9 < found.high and abs(found.value - 0.9) < 0.01 and found.n == 300
    assert outcome.counts == {"misclassified": 0, "broken": 0, "survived": 300, "unknown": 0}
    assert outcome.environment["draws"] == DRAWS
    assert sum("gradient at the inputs is exactly 0" in text for text in outcome.warnings) == 1, "as it is here"

    single = evaluate(Function(nine_in_ten), data, THREAT, QUICK)
    assert single.robust_accuracy.value < 0.5 and any("use rand" in text for text in single.warnings)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["a number an example", "a number a forward"])
def test_clean_and_robust_accuracy_cover_the_truth(shared: bool) -> None:
    """Over data sets and draws, of the distribution that both come from."""
    everything = uniform(100_000, 6, 99, 0.1, 0.9)
    suite = Suite("rand", (GradientAttack("a", margin, PGD(steps=3), draws=16),), "a test")
    covered = torch.zeros(2)
    for seed in range(24):
        outcome = evaluate(noisy(shared), labelled(60, seed), THREAT, suite, seed=seed)
        found = outcome.clean_accuracy, outcome.robust_accuracy
        covered += torch.tensor([
            each.low <= truth(everything, eps) <= each.high for each, eps in zip(found, (0, THREAT.eps), strict=True)
        ])  # fmt: skip
    assert (covered >= 22).all(), covered


@pytest.mark.slow
def test_the_mean_is_that_of_the_worst_points() -> None:
    x, y = labelled(400)
    outcome = evaluate(noisy(False), (x, y), THREAT, MEANS)
    assert outcome.clean_accuracy.value == pytest.approx(truth(x, 0), abs=0.01)
    assert outcome.robust_accuracy.value == pytest.approx(truth(x, THREAT.eps), abs=0.015)
    table = outcome.examples
    right = (np.array(table["draws"]) == 1).mean(axis=1)
    verdicts = np.array(table["verdict"])
    assert outcome.robust_accuracy.value == pytest.approx(right.mean())
    assert (right[verdicts == "survived"] > 0.5).all() and (right[verdicts == "broken"] <= 0.5).all()
    assert outcome.counts["broken"] == outcome.attacks[0].broken + outcome.attacks[1].broken > 20
    assert outcome.attacks[-1].robust_after == (outcome.counts["survived"] + outcome.counts["unknown"]) / 400
    assert len(outcome.adversarial) == outcome.counts["broken"]
    assert max(table["distance"]) <= THREAT.eps + 1e-6


def test_neither_a_wrong_draw_nor_a_wrong_mean_spares_an_example_the_search() -> None:
    """At x every example is right six times in ten; at the worst point, never."""

    def fragile(x: Inputs) -> Logits:
        value = 0.3 - x[:, 0] + (0.02 * torch.randn(len(x)) + 0.005)
        return torch.stack([value, -value], dim=1)

    x = uniform(60, 6)
    x[:, 0] = 0.3
    outcome = evaluate(Function(fragile), (x, torch.zeros(60, dtype=torch.int64)), Threat("Linf", 0.2), MEANS)
    assert outcome.clean_accuracy.value == pytest.approx(float(torch.special.ndtr(torch.tensor(0.25))), abs=0.02)
    assert outcome.robust_accuracy.value == 0


def test_no_draw_that_an_attack_saw_is_looked_at_again() -> None:
    climbed, looked, (x, y) = set[float](), set[float](), labelled(20)

    def logits(z: Inputs) -> Logits:
        drawn = torch.rand(1)
        (climbed if z.requires_grad else looked).add(float(drawn))
        value = score(z) + SIGMA * (drawn - 0.5)
        return torch.stack([-value, value], dim=1)

    model = Function(logits)
    networks, batch = Networks(model, model, None, 32), Batch(x, y, torch.arange(20))
    block = random_block(networks, batch, MEANS, 0)
    for _ in MEANS.attacks:
        attack_random_block(networks, block, THREAT, MEANS, 0)
    looked.clear()
    look_again(networks, block, 0)
    assert len(climbed) > 50 and len(looked) == DRAWS and not climbed & looked


def test_eps_zero_gives_the_clean_accuracy_in_the_same_draws() -> None:
    outcome = evaluate(noisy(False), labelled(50), Threat("Linf", 0.0), MEANS)
    assert outcome.robust_accuracy == outcome.clean_accuracy and 0.6 < outcome.clean_accuracy.value < 1


@pytest.mark.slow
def test_the_result_depends_on_the_seed_alone_and_the_caller_s_random_state_stays(tmp_path: Path) -> None:
    data, model = labelled(40), noisy(False)
    first = evaluate(model, data, THREAT, MEANS, out=tmp_path)
    torch.rand(7)
    before = torch.get_rng_state()
    again = evaluate(model, data, THREAT, MEANS)
    assert torch.equal(torch.get_rng_state(), before) and first.examples == again.examples
    assert evaluate(model, data, THREAT, MEANS, seed=1).examples != first.examples
    stored = parquet.read_table(tmp_path / "rand" / "part-00000.parquet")
    assert stored["draws"].to_pylist() == first.examples["draws"] and len(stored["clean_draws"][0]) == DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("where", ["everywhere", "under attack"])
def test_draws_that_are_not_finite_are_unknown_never_right(where: str) -> None:
    """For a quarter of the examples one draw in four is NaN, at x too or only away from it."""
    x, y = uniform(80, 6, 0, 0.6, 0.9), torch.zeros(80, dtype=torch.int64)
    x[:, 0] = torch.where(torch.arange(80) % 4 == 0, 0.8, 0.2)

    def sometimes(z: Inputs) -> Logits:
        hit = (torch.rand(len(z)) < 0.25) & (z[:, 0] > 0.5)
        if where == "under attack":
            hit = hit & (z[:, 0] != 0.8)
        value = z[:, 1] + 1 + 0 * torch.rand(len(z))
        return torch.stack([value, torch.where(hit, torch.nan, -value)], dim=1)

    outcome = evaluate(Function(sometimes), (x, y), Threat("Linf", 0.1), MEANS)
    assert outcome.counts["unknown"] == 20 and outcome.counts["survived"] == 60
    robust, clean = outcome.robust_accuracy, outcome.clean_accuracy
    assert robust.value == 0.75 and robust.high == 1
    assert robust.low == pytest.approx(wilson(60, 80).low, abs=1e-6)
    assert clean.value == (1.0 if where == "under attack" else pytest.approx(0.75 + 0.25 * 0.75, abs=0.01))


def test_a_point_outside_the_threat_set_does_not_count() -> None:
    from unperturbed.attacks.base import Attack, AttackResult

    class Far(Attack):
        label, restarts, draws = "far", 1, 2

        def __call__(
            self, model: nn.Module, batch: Batch, threat: Threat, noise: object, batch_size: int
        ) -> AttackResult:
            z, ones = 1 - batch.x, torch.ones_like(batch.y)
            return AttackResult(z, ones.float(), ones.bool(), ones, 0)

    x, y = labelled(30)
    batch = Batch(x, y, torch.arange(30))
    model, suite = noisy(False), Suite("s", (Far(),), "")
    networks = Networks(model, model, None, 32)
    block = random_block(networks, batch, suite, 0)
    attack_random_block(networks, block, THREAT, suite, 0)
    assert torch.equal(block.z, x) and (block.found_by == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: linear(6, 2), lambda: nn.Sequential(nn.Dropout(0.5), linear(6, 2))])
def test_without_random_numbers_it_is_the_ordinary_evaluation(make: Callable[[], nn.Module]) -> None:
    x = uniform(60, 6)
    y = make().eval()(x).argmax(1)
    means, plain = (evaluate(make(), (x, y), Threat("Linf", 0.1), suite) for suite in (MEANS, QUICK))
    assert means.counts == plain.counts and plain.counts["broken"] > 3
    assert means.robust_accuracy.value == plain.robust_accuracy.value
    assert (means.robust_accuracy.low, means.robust_accuracy.high) == pytest.approx(
        (plain.robust_accuracy.low, plain.robust_accuracy.high)
    )
    assert any("use standard" in text for text in means.warnings)


@pytest.mark.slow
def test_randomness_in_a_later_block_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 20)
    x, y = labelled(60)
    x[:, 0] = torch.linspace(0, 1, 60)

    def late(x: Inputs) -> Logits:
        value = score(x) + torch.where(x[:, 0] > 0.9, torch.randn(len(x)), 0.0)
        return torch.stack([-value, value], dim=1)

    def told(data: tuple[Inputs, Tensor]) -> Outcome:
        return evaluate(Function(late), data, Threat("Linf", 0.001), QUICK)

    assert any("draws random numbers" in text for text in told((x, y)).warnings)
    assert not any("draws random numbers" in text for text in told((x[:40], y[:40])).warnings)
