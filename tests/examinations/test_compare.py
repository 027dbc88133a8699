"""Networks side by side: planted trends are found, absent ones are not, and the arithmetic is the textbook's."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from unperturbed.errors import InputError
from unperturbed.examinations import compare as module
from unperturbed.examinations.compare import CLAIMS, CONTROLS, SCALE, compare
from unperturbed.findings import Comparison, Distribution, Examined, Finding, Line, Number, Trend

QUANTITIES = [claim.quantity for claim in CLAIMS]


def network(
    strength: float, seed: int, values: dict[str, np.ndarray], numbers: dict[str, float] | None = None
) -> Examined:
    distributions = tuple(
        Distribution(name, tuple(map(float, each)), tuple(range(len(each)))) for name, each in values.items()
    )
    told = tuple(Number(name, value, 1) for name, value in (numbers or {}).items())
    return Examined(f"{strength}-{seed}", strength, seed, (Finding("t", "s", told, distributions),))


def planted(
    slopes: tuple[float, ...], seeds: int = 3, examples: int = 80, draw: int = 0, spread: float = 0.1
) -> list[Examined]:
    """Networks at four strengths whose quantities move by these slopes, with noise by network and by example."""
    random = np.random.default_rng(draw)
    shared = [random.normal(size=examples) for _ in slopes]
    return [
        network(
            strength,
            seed,
            {
                name: 1 + slope * strength + each + spread * random.normal() + 0.3 * random.normal(size=examples)
                for name, slope, each in zip(QUANTITIES, slopes, shared, strict=True)
            },
        )
        for strength in (0.0, 0.1, 0.2, 0.3)
        for seed in range(seeds)
    ]


def decisions(found: Comparison) -> list[str]:
    return [trend.decision for trend in found.claims]


def test_planted_trends_are_decided_by_their_sign() -> None:
    found = compare(planted((-5.0, 5.0, -5.0, 0.0)))
    assert decisions(found) == ["held", "did not hold", "held", "not decided here"]
    assert found.claims[0].change == pytest.approx(-1.5, abs=0.2)
    assert found.networks == (3, 3, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 1.0], ids=["other examples", "shared examples"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_alone_decide_a_claim_in_no_more_than_one_case_of_twenty(seeds: int, shared: float) -> None:
    """The trial of networks that differ by their seeds and by noise alone, 2,000 times: the level is 5%."""
    random = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(2000):
        base = shared * random.normal(size=60)
        values = [
            np.array([base + 0.3 * random.normal() + 0.5 * random.normal(size=60) for _ in range(seeds)])
            for _ in range(3)
        ]
        wrong += module._trend(CLAIMS[0], values, (0.0, 0.1, 0.3)).p < 0.05
    assert wrong <= 130  # 100 expected at most; 3 standard deviations of the simulation more


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_scatter_more_at_one_strength_decide_seldom(seeds: int) -> None:
    """Strengths whose seeds scatter up to seven times as much as others': few networks cannot tell, within 8%."""
    random = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(2000):
        values = [spread * random.normal(size=(seeds, 1)) for spread in (0.3, 1.0, 2.0)]
        wrong += module._trend(CLAIMS[0], values, (0.0, 0.1, 0.3)).p < 0.05
    assert wrong <= 180


@pytest.mark.slow
def test_four_claims_together_are_seldom_decided_without_a_trend() -> None:
    wrong = sum(
        any(each != "not decided here" for each in decisions(compare(planted((0.0,) * 4, examples=40, draw=draw))))
        for draw in range(40)
    )
    assert wrong <= 6


@pytest.mark.parametrize("draw", range(5))
def test_one_network_a_strength_decides_nothing(draw: int) -> None:
    """Another seed may show the reverse of one network of each strength."""
    found = compare(planted((-50.0, 50.0, -50.0, 0.0), seeds=1, draw=draw))
    for trend in (*found.claims, *found.controls):
        assert trend.decision == "not decided here" and trend.p == 1
        assert "one network a strength: seeds are not covered" in str(trend)
    assert "one network a strength: seeds are not covered" in json.dumps(asdict(found))


def test_a_single_network_at_one_of_the_strengths_decides_nothing() -> None:
    models = [model for model in planted((-50.0,) * 4) if model.strength != 0.2 or model.seed == 0]
    assert set(decisions(compare(models))) == {"not decided here"}


def test_a_copy_of_a_network_is_no_second_seed() -> None:
    models = planted((-50.0,) * 4, seeds=1)
    found = compare([*models, *(replace(model, name=f"{model.name} again") for model in models)])
    assert found.networks == (1, 1, 1, 1) and set(decisions(found)) == {"not decided here"}
    assert any("copy" in note for note in found.notes)


def test_p_and_interval_are_those_of_welch_between_two_strengths() -> None:
    """With single numbers and two strengths, the test is Welch's as SciPy computes it."""
    low, high = np.array([1.0, 1.4, 0.9]), np.array([1.8, 2.9, 2.2, 2.4])
    trend = module._trend(CLAIMS[0], [low[:, None], high[:, None]], (0.0, 0.1))
    known = ttest_ind(high, low, equal_var=False)
    interval = known.confidence_interval(0.95)
    assert trend.p == pytest.approx(known.pvalue) and (trend.low, trend.high) == pytest.approx(tuple(interval))


def test_the_change_is_that_of_the_least_squares_line() -> None:
    models = planted((1.0, 2.0, 3.0, 4.0))
    found = compare(models)
    strengths = sorted({model.strength for model in models})
    for trend in found.claims:
        slope, _ = np.polyfit(strengths, trend.means, 1)
        assert trend.change == pytest.approx(slope * (strengths[-1] - strengths[0]))


def test_intervals_over_examples_agree_with_theory_where_one_network_stands_for_a_strength() -> None:
    """With one network a strength, the change is a mean over paired examples: its interval is close to normal."""
    models = planted((1.0,) * 4, seeds=1, examples=400)
    trend = compare(models).claims[0]
    strengths = np.array([model.strength for model in models])
    values = np.array([model.distribution(QUANTITIES[0]).values for model in models])  # type: ignore[union-attr]
    weights = (strengths - strengths.mean()) / ((strengths - strengths.mean()) ** 2).sum() * strengths.max()
    changes = weights @ values
    half = 1.96 * changes.std(ddof=1) / len(changes) ** 0.5
    assert trend.low == pytest.approx(changes.mean() - half, abs=half / 8)
    assert trend.high == pytest.approx(changes.mean() + half, abs=half / 8)


def test_networks_of_one_strength_that_differ_widen_the_interval() -> None:
    narrow, wide = (compare(planted((-1.0,) * 4, spread=spread)).claims[0] for spread in (0.0, 1.0))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_p_is_adjusted_after_holm() -> None:
    trends = [
        Trend(claim, 1.0, 0.5, 1.5, p, "not decided here", 9, ())
        for claim, p in zip(CLAIMS, (0.01, 0.04, 0.03, 0.005), strict=True)
    ]
    adjusted = module._holm(trends)
    assert [trend.p for trend in adjusted] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [trend.decision for trend in adjusted] == [
        "did not hold",
        "not decided here",
        "not decided here",
        "did not hold",
    ]


def test_only_examples_that_every_network_has_are_compared() -> None:
    models = planted((-1.0,) * 4)
    first = models[0].findings[0].distributions
    cut = tuple(Distribution(each.name, each.values[:30], each.ids[:30]) for each in first)
    models[0] = Examined("cut", 0.0, 0, (Finding("t", "s", (), cut),))
    assert {trend.examples for trend in compare(models).claims} == {30}


def test_a_claim_whose_quantity_is_missing_somewhere_is_told_not_tested() -> None:
    models = planted((-1.0,) * 4)
    kept = tuple(each for each in models[3].findings[0].distributions if each.name != QUANTITIES[1])
    models[3] = Examined("less", models[3].strength, 0, (Finding("t", "s", (), kept),))
    found = compare(models)
    assert [trend.claim for trend in found.claims] == [CLAIMS[0], CLAIMS[2], CLAIMS[3]]
    assert any(QUANTITIES[1] in note for note in found.notes)


def test_the_order_of_networks_does_not_matter() -> None:
    models = planted((-1.0, 0.5, 0.0, 2.0))
    assert compare(models).claims == compare(sorted(models, key=lambda each: (each.strength, each.seed))).claims
    assert compare(models[::-1]).rows == compare(models).rows


def test_margins_are_compared_without_the_scale_of_the_networks() -> None:
    """Networks that differ in scale alone have a trend in their margins, and none once the scale is taken out."""
    margins = np.random.default_rng(0).normal(2, 1, size=50)
    models = [
        network(strength, seed, {"output margin, test": margins * 10.0**-strength}, {SCALE: -strength})
        for strength in (0.0, 1.0, 2.0)
        for seed in range(2)
    ]
    found = compare(models)
    (claim,), (control,) = found.claims, found.controls
    assert claim.decision == "held"
    assert control.claim.without_scale and control.change == pytest.approx(0, abs=1e-12)
    assert control.decision == "not decided here"


def test_single_numbers_are_compared_over_networks() -> None:
    name = next(claim.quantity for claim in CONTROLS if claim.quantity.startswith("mean over layers"))
    models = [
        network(strength, seed, {}, {name: 1 - strength + 0.01 * seed}) for strength in (0.0, 1.0) for seed in range(3)
    ]
    (control,) = compare(models).controls
    assert control.decision == "held" and control.change == pytest.approx(-1) and control.examples == 1
    found = compare([model for model in models if model.seed == 0])
    assert not found.controls and any("single number" in note for note in found.notes)


def test_rows_hold_means_over_networks_with_students_interval() -> None:
    models = [network(strength, seed, {}, {"a": strength + seed**2}) for strength in (0.0, 1.0) for seed in range(3)]
    (row,) = compare(models).rows
    values = np.array([0.0, 1.0, 4.0])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    assert row.quantity == "a" and row.means == pytest.approx((values.mean(), values.mean() + 1))
    assert row.low[0] == pytest.approx(values.mean() - half) and row.high[1] == pytest.approx(values.mean() + 1 + half)


def test_the_mean_of_a_distribution_is_told_once() -> None:
    models = [network(strength, 0, {"a": np.ones(3)}, {"a: mean": 1.0, "b: mean": 2.0}) for strength in (0.0, 1.0)]
    assert [row.quantity for row in compare(models).rows] == ["b: mean", "mean a"]


def test_a_single_network_of_a_strength_is_told() -> None:
    found = compare(planted((-1.0,) * 4, seeds=1))
    assert any("one network only" in note for note in found.notes)
    assert set(found.rows[0].low) == {None}


def test_means_over_different_blocks_are_told() -> None:
    def with_blocks(model: Examined, blocks: tuple[str, ...]) -> Examined:
        line = Line("directional spread", blocks, (0.5,) * len(blocks))
        return replace(model, findings=(replace(model.findings[0], lines=(line,)),))

    same = [with_blocks(model, ("a", "b")) for model in planted((-1.0,) * 4)]
    assert not any("different blocks" in note for note in compare(same).notes)
    assert any("different blocks" in note for note in compare([*same[1:], with_blocks(same[0], ("a",))]).notes)


def test_one_strength_is_no_comparison() -> None:
    with pytest.raises(InputError, match="two strengths"):
        compare([network(0.1, seed, {}) for seed in range(3)])


def test_a_comparison_is_plain_data() -> None:
    json.dumps(asdict(compare(planted((-1.0,) * 4))), allow_nan=False)


def test_a_sentence_tells_claim_decision_and_numbers() -> None:
    text = str(compare(planted((-5.0,) * 4)).claims[3])
    assert text.startswith("Confidence falls: held (probability of the predicted class, test: ")
    assert "n = 80" in text
