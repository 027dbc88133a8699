"""A comparison of several networks: every quantity against the strength of training, and tests of the claims."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.stats import t

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import Claim, Comparison, Decision, Examined, Row, Trend
from unperturbed.statistics.holm import holm

LEVEL = 0.05
ONE_NETWORK = "one network a strength: seeds are not covered"
"""The reason for an undecided claim if a strength has one network."""
SCALE = "log10 of the product of largest singular values (real)"
"""The divisor of a network's margins that removes the scale of its logits."""
BLOCKS = "relative change of the features, worst case", "directional spread"
"""The lines with the blocks of a mean over blocks."""
_NUMBER = -1

CLAIMS = (
    Claim("Changes in feature space become smaller", "feature change, worst case", -1),
    Claim("Changes in feature space become more uniform over directions", "directional spread", -1),
    Claim("Samples gather at the decision boundary", "output margin, test", -1),
    Claim("Confidence falls", "probability of the predicted class, test", -1),
)
"""The claims of the abstract of Wen, Li & Jia (2020, https://arxiv.org/abs/2011.07478), with their quantities."""
CONTROLS = (
    Claim("Changes under uniform noise of the same size become smaller", "feature change, uniform noise", -1),
    Claim("Changes under Gaussian noise of the same length become smaller", "feature change, Gaussian noise", -1),
    Claim(
        "Singular values of the input Jacobian become more equal", "spread of the input Jacobian's singular values", -1
    ),
    Claim(
        "Singular values of the layers become more equal",
        "mean over layers of standard deviation of singular values (reshaped)",
        -1,
    ),
    Claim(
        "Singular values of the layers become more equal, their scale taken out",
        "mean over layers of standard deviation over largest singular value (reshaped)",
        -1,
    ),
    Claim("Samples gather at the decision boundary, the networks' scale taken out", "output margin, test", -1, True),
)
"""Other quantities for the same claims, shown after the four claims."""


@checked()
def compare(models: Sequence[Examined], seed: int = 0) -> Comparison:
    """Return every quantity against the strength, and the decisions on the claims.

    A claim is decided if every strength has two networks or more. Networks of one strength and seed with the same
    findings are copies, and count once. `seed` has no effect.

    Raises:
        InputError: with fewer than two strengths, or for other objects than examined networks.
    """
    models, copies = _without_copies(models)
    strengths = tuple(sorted({model.strength for model in models}))
    if len(strengths) < 2:
        raise InputError(
            f"A trend needs two strengths at least, but all networks were trained at eps {strengths[0]:g}."
        )
    ordered = sorted(models, key=lambda model: (model.seed, model.name))
    groups = [[model for model in ordered if model.strength == strength] for strength in strengths]
    quantities = [(claim, _values(claim, groups)) for claim in (*CLAIMS, *CONTROLS)]
    tested = {claim: _trend(claim, values, strengths) for claim, values in quantities if not isinstance(values, str)}
    return Comparison(
        strengths,
        tuple(len(group) for group in groups),
        _rows(groups),
        _holm([tested[claim] for claim in CLAIMS if claim in tested]),
        tuple(_decided(tested[claim], tested[claim].p) for claim in CONTROLS if claim in tested),
        tuple(
            [
                f"{claim.sentence}: not tested, since {values}."
                for claim, values in quantities
                if isinstance(values, str)
            ]
            + copies
            + _notes(groups)
        ),
    )


def _without_copies(models: Sequence[Examined]) -> tuple[list[Examined], list[str]]:
    """Return the networks without copies, and a note on the copies."""
    distinct, notes = list[Examined](), list[str]()
    for model in models:
        key = model.strength, model.seed, model.findings
        first = next(
            (
                network
                for network in distinct
                if (network.strength, network.seed, network.findings) == key and network.findings
            ),
            None,
        )
        if first is None:
            distinct.append(model)
        else:
            notes.append(f"{model.name} has the seed and all the findings of {first.name}: a copy, counted once.")
    return distinct, notes


def _values(claim: Claim, groups: Sequence[Sequence[Examined]]) -> list[np.ndarray] | str:
    """Return for each strength an array (networks, examples) over the common examples, or the reason why not."""
    columns = [[_column(claim, model) for model in group] for group in groups]
    shared = set.intersection(*(set(column) for group in columns for column in group))
    if not shared and claim.without_scale:
        return f"not every network has {claim.quantity!r} of the same examples, and {SCALE!r}"
    if not shared:
        return f"not every network has {claim.quantity!r} of the same examples"
    ids = sorted(shared)
    if ids == [_NUMBER] and max(map(len, groups)) == 1:
        return f"{claim.quantity!r} is a single number of a network, and no strength has two networks"
    return [np.array([[column[name] for name in ids] for column in group]) for group in columns]


def _column(claim: Claim, model: Examined) -> Mapping[int, float]:
    """Return a network's values by the ids of the examples, or a single number under a separate id; or empty."""
    distribution, number = model.distribution(claim.quantity), model.number(claim.quantity)
    if distribution is None and number is not None:
        return {_NUMBER: number}
    scale = model.number(SCALE) if claim.without_scale else 0.0
    if distribution is None or scale is None:
        return {}
    return {name: value * 10.0**-scale for name, value in zip(distribution.ids, distribution.values, strict=True)}


def _trend(claim: Claim, values: Sequence[np.ndarray], strengths: Sequence[float], seed: int = 0) -> Trend:
    """Return the trend with the unadjusted p of this claim, undecided.

    The change of the fitted line is tested by Student's t. Its variance is that of the networks within every strength
    plus that over the examples, which all networks share; the degrees of freedom are Satterthwaite's (Welch 1947,
    https://doi.org/10.1093/biomet/34.1-2.28), so that strengths whose seeds scatter differently keep the level. With
    one network at a strength the interval covers the examples only, and p is 1.
    """
    weights, means = _contrast(strengths), [float(network_values.mean()) for network_values in values]
    change, examples = float(weights @ means), values[0].shape[1]
    alone = min(len(network_values) for network_values in values) < 2
    parts = (
        []
        if alone
        else [
            (w**2 * network_values.mean(1).var(ddof=1) / len(network_values), len(network_values) - 1)
            for w, network_values in zip(weights, values, strict=True)
        ]
    )
    if examples > 1:
        over_examples = sum(w * network_values.mean(0) for w, network_values in zip(weights, values, strict=True))
        parts.append((np.var(over_examples, ddof=1) / examples, examples - 1))
    variance = float(sum(part for part, _ in parts))
    freedom = variance**2 / sum(part**2 / free for part, free in parts) if variance > 0 else 1.0
    half = float(t.ppf(1 - LEVEL / 2, freedom)) * variance**0.5
    p = 1.0 if alone or change == 0 else 2 * float(t.sf(abs(change) / max(variance**0.5, 1e-300), freedom))
    reason = ONE_NETWORK if alone else ""
    return Trend(claim, change, change - half, change + half, p, "not decided here", examples, tuple(means), reason)


def _contrast(strengths: Sequence[float]) -> np.ndarray:
    """Return the weights of the means in the fitted line's change from the first strength to the last."""
    centred = np.asarray(strengths) - np.mean(strengths)
    return np.asarray(centred / (centred @ centred) * (strengths[-1] - strengths[0]))


def _holm(trends: Sequence[Trend]) -> tuple[Trend, ...]:
    """Return the trends decided with p adjusted for their number (Holm 1979)."""
    adjusted = holm([trend.p for trend in trends])
    return tuple(_decided(trend, p) for trend, p in zip(trends, adjusted, strict=True))


def _decided(trend: Trend, p: float) -> Trend:
    """Return the trend with its adjusted p and decision."""
    decision: Decision = "not decided here"
    if p < LEVEL:
        decision = "held" if trend.change * trend.claim.sign > 0 else "did not hold"
    return replace(trend, p=p, decision=decision)


def _rows(groups: Sequence[Sequence[Examined]]) -> tuple[Row, ...]:
    """Return one row per quantity, in the order of the diagnostics."""
    quantities: dict[str, str] = {}
    for model in (model for group in groups for model in group):
        for finding in model.findings:
            means = {f"{entry.name}: mean" for entry in finding.distributions}
            quantities |= {entry.name: entry.unit for entry in finding.numbers if entry.name not in means}
            quantities |= {f"mean {entry.name}": entry.unit for entry in finding.distributions}
    return tuple(_row(name, unit, groups) for name, unit in quantities.items())


def _row(quantity: str, unit: str, groups: Sequence[Sequence[Examined]]) -> Row:
    cells = [_cell([value for model in group if (value := _single(model, quantity)) is not None]) for group in groups]
    means, low, high = zip(*cells, strict=True)
    return Row(quantity, unit, means, low, high)


def _single(model: Examined, quantity: str) -> float | None:
    number = model.number(quantity)
    if number is not None:
        return number
    distribution = model.distribution(quantity.removeprefix("mean "))
    return float(np.mean(distribution.values)) if distribution is not None and distribution.values else None


def _cell(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return the mean over networks and its 95% interval, if it exists."""
    if len(values) < 2:
        return (values[0] if values else None), None, None
    mean, half = (
        float(np.mean(values)),
        float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5),
    )
    return mean, mean - half, mean + half


def _notes(groups: Sequence[Sequence[Examined]]) -> list[str]:
    """Return notes on the limits of the comparison of these networks."""
    notes = []
    alone = [f"{group[0].strength:g}" for group in groups if len(group) == 1]
    if alone:
        notes.append(
            f"At eps {', '.join(alone)} there is one network only. No claim is decided ({ONE_NETWORK}): another seed "
            "of training may change what the intervals, over examples alone, do not show. Train two seeds or more."
        )
    positions = [
        {line.x for group in groups for network in group if (line := network.line(name)) is not None} for name in BLOCKS
    ]
    if any(len(blocks) > 1 for blocks in positions):
        notes.append("The networks have different blocks: means over the blocks are not comparable.")
    seeds = [{model.seed for model in group} for group in groups]
    if any(first != second for first, second in pairwise(seeds)):
        notes.append("The strengths were not trained with the same seeds.")
    return notes
