"""The rule on made-up differences whose truth is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unperturbed.studies.rule import Claim, Verdict, decide_all
from unperturbed.studies.values import Values, stack

SEEDS, EXAMPLES = 5, 400


def correct(share: float, seed: int = 0, seeds: int = SEEDS) -> Tensor:
    """Return the correctness of a network: examples have an effect of their own, which all seeds share."""
    generator = torch.Generator().manual_seed(seed)
    ease = torch.randn(1, EXAMPLES, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    drawn = ease + torch.randn(seeds, EXAMPLES, generator=generator, dtype=torch.float64)
    return (drawn > drawn.flatten().quantile(1 - share)).double()


def values_of(**networks: Tensor) -> Values:
    return Values({(name, "robust"): rows for name, rows in networks.items()}, {}, {})


def difference(values: Values) -> Tensor:
    return values.of("ours", "robust") - values.of("theirs", "robust")


SUPERIOR = Claim("ours is more robust", difference)
WITHIN = Claim("ours is as robust, within two points", difference, kind="within", threshold=0.02)
NOT_WORSE = Claim("ours is at most ten points less robust", difference, threshold=-0.1)


def decided(claim: Claim, ours: Tensor, theirs: Tensor) -> Verdict:
    (verdict,) = decide_all([(claim, values_of(ours=ours, theirs=theirs))])
    return verdict


def test_a_clear_difference_holds_on_its_side_and_not_on_the_other() -> None:
    better, worse = correct(0.7, 1), correct(0.55, 2)
    assert decided(SUPERIOR, better, worse).decision == "held"
    assert decided(SUPERIOR, worse, better).decision == "did not hold"
    assert decided(SUPERIOR, better, worse).mean == pytest.approx(0.15, abs=1e-3)


def test_a_small_difference_is_undecided_and_more_seeds_would_decide_it() -> None:
    verdict = decided(SUPERIOR, correct(0.61, 3), correct(0.60, 4))
    assert verdict.decision == "not decided here" and verdict.low < 0 < verdict.high
    assert verdict.needed is None or verdict.needed > SEEDS
    assert "would decide it" in str(verdict)


def test_a_margin_named_beforehand_makes_equality_a_claim() -> None:
    same = correct(0.6, 5)
    nearly = same.clone()
    nearly[:, 0] = 1 - nearly[:, 0]
    assert decided(WITHIN, nearly, same).decision == "held"
    assert decided(WITHIN, correct(0.75, 6), same).decision == "did not hold"
    assert decided(WITHIN, correct(0.75, 6).logical_not().double(), same).decision == "did not hold"
    assert decided(WITHIN, correct(0.615, 7), same).decision == "not decided here"


def test_a_loss_below_the_margin_counts_as_not_worse() -> None:
    assert decided(NOT_WORSE, correct(0.6, 8), correct(0.62, 9)).decision == "held"
    assert decided(NOT_WORSE, correct(0.4, 8), correct(0.62, 9)).decision == "did not hold"


def test_one_seed_decides_nothing() -> None:
    verdict = decided(SUPERIOR, correct(0.9, 1, seeds=1), correct(0.1, 2, seeds=1))
    assert verdict.decision == "not decided here" and "one seed" in verdict.further()


def test_unknown_verdicts_never_help_a_claim() -> None:
    """Enough of them leave the claim open, though the known examples decide it."""
    better, worse = correct(0.7, 1), correct(0.6, 2)
    assert decided(SUPERIOR, better, worse).decision == "held"
    spoiled = better.clone()
    spoiled[:, :100] = float("nan")
    verdict = decided(SUPERIOR, spoiled, worse)
    assert verdict.decision == "not decided here" and verdict.low < 0 < verdict.high


def test_examples_without_a_value_are_left_out_where_the_claim_says_so() -> None:
    claim = Claim("a mean above 0", lambda values: values.of("ours", "robust"), unknown=None, percent=False)
    rows = stack([[1.0, None, 1.2], [0.9, 0.8, 1.1], [1.0, 5.0, 1.05]])
    (verdict,) = decide_all([(claim, values_of(ours=rows))])
    assert verdict.examples == 2 and verdict.mean == pytest.approx(float(rows[:, [0, 2]].mean()))
    (nothing,) = decide_all([(claim, values_of(ours=stack([[None], [None]])))])
    assert nothing.decision == "not decided here" and nothing.reason


def test_equal_networks_do_not_prove_equality_within_less_than_an_example() -> None:
    same = correct(0.6, 5)
    tiny = Claim("equal within a hundredth of an example", difference, kind="within", threshold=1 / EXAMPLES / 100)
    assert decided(tiny, same, same).decision == "not decided here"
    assert decided(WITHIN, same, same).decision == "held"


def test_holm_is_over_all_claims_of_the_study() -> None:
    values = values_of(ours=correct(0.66, 1), theirs=correct(0.6, 2))
    (alone,) = decide_all([(SUPERIOR, values)])
    together = decide_all([(SUPERIOR, values)] * 3)
    assert together[0].p == pytest.approx(min(1.0, 3 * alone.p))


def noise(seed: int) -> Callable[[Values], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = 0.05 * torch.randn(SEEDS, 1, generator=generator) + torch.randn(SEEDS, 50, generator=generator)
    return lambda values: rows.double()


@pytest.mark.long
@pytest.mark.slow
def test_noise_decides_at_most_one_study_of_twenty() -> None:
    """Studies of four claims, whose truth is a difference of 0."""
    studies = [[(Claim("noise", noise(4 * k + i), percent=False), values_of()) for i in range(4)] for k in range(200)]
    wrong = sum(any(verdict.decision != "not decided here" for verdict in decide_all(study)) for study in studies)
    assert wrong / 200 <= 0.08


def test_a_time_is_over_repeats_and_below_its_share() -> None:
    values = Values({}, {"ours": torch.linspace(4.8, 5.2, 9), "theirs": torch.full((9,), 10.0)}, {})
    claims = [
        Claim("less than 60%", lambda values: 0.6 - values.time_share("ours", "theirs"), over="repeats"),
        Claim("less than 40%", lambda values: 0.4 - values.time_share("ours", "theirs"), over="repeats"),
    ]
    held, missed = decide_all([(claim, values) for claim in claims])
    assert (held.decision, missed.decision) == ("held", "did not hold")
    assert held.mean == pytest.approx(0.1) and str(held).endswith("9 repeats.")
