"""The check of a sample of survivors by a stronger suite, and the estimate that it gives for all of them."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unperturbed.attacks.gradient import Gate, Suite
from unperturbed.data.split import Split, select
from unperturbed.evaluation.carry import Carried, broken_at, points_of
from unperturbed.evaluation.evidence import FALLEN, FALLEN_BEFORE_CHECK
from unperturbed.evaluation.measurement import LOADED
from unperturbed.findings import AttackRecord, GateRecord, Interval, Outcome
from unperturbed.noise import Noise
from unperturbed.statistics.finite import marked_in_population
from unperturbed.threat import Threat

NEAREST = 25
"""Survivors nearest to a break that are in every first sample; in a small one, half of it."""
SHARE_OF_NEAREST, MOST_SAMPLED = 0.02, 350
"""For a half-width, this share of all survivors are in the nearest, where the sample stays that small: breaks among
them count as they are, and one among the drawn ones makes the interval half as wide again."""
STANDING = 8
"""So many of the nearest survivors, those farthest from a break, must stand before the check leaves the nearest."""
OF_A_LOOK = 0.97
"""Level of the interval at each size of a sample that grows: it ends at the first that is narrow enough, so that all
sizes together miss more often than one (at 0.95 each, the end missed in 7% of 1,000 samples of a network)."""
Attacked = tuple[Outcome, Path | None]
"""The outcome of a suite on some survivors, and the folder with its points."""


@dataclass(frozen=True)
class Sample:
    """Survivors in the order in which samples take them, by id.

    Attributes:
        nearest: those nearest to a break, nearest first.
        drawn: the others that are in the sample, in a random order that depends on seed and id alone.
        others: the rest of them.
    """

    nearest: tuple[int, ...]
    drawn: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All that are in the sample."""
        return self.nearest + self.drawn


def sample_survivors(outcome: Outcome, nearest: int, drawn: int, seed: int) -> Sample:
    """Return a sample of the survivors of an outcome, which does not depend on their order.

    So many of largest margin, and so many of the others, drawn at random: fewer where there are fewer.
    """
    table = zip(outcome.examples["id"], outcome.examples["verdict"], outcome.examples["margin"], strict=True)
    ranked = [name for _, name in sorted((-margin, name) for name, verdict, margin in table if verdict == "survived")]
    closest, far = ranked[:nearest], sorted(ranked[nearest:])
    draws = Noise.of(seed, torch.tensor(far, dtype=torch.int64)).uniform((1,)).flatten().tolist()
    shuffled = [name for _, name in sorted(zip(draws, far, strict=True))]
    return Sample(tuple(closest), tuple(shuffled[:drawn]), tuple(shuffled[drawn:]))


def first_sizes(survivors: int, n: int, gate: Gate) -> tuple[int, int]:
    """Return how many of the nearest and of the others are in the first sample.

    The gate's share of the survivors, or as many as a half-width needs if nothing breaks.
    """
    half_width, least = gate.half_width, min(gate.least, survivors)
    if half_width is None:
        size = min(max(least, math.ceil(gate.share * survivors)), survivors)
        nearest = min(size // 2, NEAREST)
        return nearest, size - nearest

    def suffices(size: int) -> bool:
        nearest = min(size // 2, NEAREST)
        most = marked_in_population(0, size - nearest, survivors - nearest, OF_A_LOOK)[1]
        return most / n / 2 <= half_width

    size = least + bisect_left(range(least, survivors), True, key=suffices)
    nearest = min(size // 2, NEAREST)
    more = min(round(SHARE_OF_NEAREST * survivors), MOST_SAMPLED - (size - nearest))
    return max(nearest, more), size - nearest


def estimated(
    outcome: Outcome, sample: Sample, broken: set[int], undecided: set[int], half_width: float | None = None
) -> Interval:
    """Return the robust accuracy if all survivors were attacked, estimated from a sample, with its 95% interval.

    The nearest survivors count as they are; from the drawn ones an exact interval of the finite population follows
    (see `marked_in_population`), and the value is its unbiased estimate. Undecided examples count as broken for the
    low end. A sample that grows up to a half-width has a wider interval at each of its sizes (`OF_A_LOOK`).
    """
    level = 0.95 if half_width is None else OF_A_LOOK
    survivors = outcome.counts["survived"]
    certain = sum(name in broken for name in sample.nearest)
    open_nearest = sum(name in undecided for name in sample.nearest)
    size, drawn = survivors - len(sample.nearest), len(sample.drawn)
    breaks = sum(name in broken for name in sample.drawn)
    open_drawn = sum(name in undecided for name in sample.drawn)
    fewest, _ = marked_in_population(breaks, drawn, size, level)
    _, most = marked_in_population(breaks + open_drawn, drawn, size, level)
    share = breaks / drawn * size if drawn else 0.0
    n = outcome.n
    return Interval(
        (survivors - certain - share) / n,
        (survivors - certain - open_nearest - most) / n,
        (survivors - certain - fewest) / n,
        n,
    )


def attack_samples(
    outcome: Outcome, gate: Gate, seed: int, attack: Callable[[Sequence[int]], tuple[set[int], set[int]]]
) -> tuple[Sample, Interval]:
    """Attack samples of the survivors, each a superset of the one before, and return the last with its estimate.

    With a half-width, the drawn part grows until the estimate is narrow enough. Without one, the number of the nearest
    grows by `STANDING` as long as one of the last so many breaks: breaks are most common there, and the random part of
    the sample tells whether there are others. The estimate stays unbiased, as this rule does not look at the random
    part. It ends early with more breaks than a sound suite misses (`misses_too_many`).

    Args:
        outcome: of a suite.
        gate: the stronger suite, and the size of the sample.
        seed: of the sample.
        attack: attacks the survivors with these ids, and returns the ids of the broken and of the undecided ones.
    """
    nearest, drawn = first_sizes(outcome.counts["survived"], outcome.n, gate)
    sample = sample_survivors(outcome, nearest, drawn, seed)
    while True:
        broken, undecided = attack(sample.ids)
        estimate = estimated(outcome, sample, broken, undecided, gate.half_width)
        if gate.half_width is not None:
            # differences of shares such as 1 - 0.99 are not exact
            is_done = round((estimate.high - estimate.low) / 2, 12) <= gate.half_width
            drawn = math.ceil(1.3 * len(sample.ids)) - nearest
        else:
            is_done = broken.isdisjoint(sample.nearest[-STANDING:]) or misses_too_many(outcome, estimate, len(broken))
            nearest += STANDING
        if is_done or not sample.others:
            return sample, estimate
        sample = sample_survivors(outcome, nearest, drawn, seed)


def misses_too_many(outcome: Outcome, estimate: Interval, broken: int) -> bool:
    """Tell whether a suite misses more breaks than a sound one, by the estimate from a sample with `broken` breaks.

    That is where the other survivors have more than `FALLEN` of all examples, or where the sample alone has more than
    `FALLEN_BEFORE_CHECK`.
    """
    others = (outcome.counts["survived"] - broken) / outcome.n - estimate.value
    return others > FALLEN or broken > FALLEN_BEFORE_CHECK * outcome.n


def through_gate(
    outcome: Outcome,
    gate: Gate,
    threat: Threat,
    split: Split,
    seed: int,
    attack: Callable[[Split, Suite, str], Attacked],
) -> tuple[Outcome, Carried]:
    """Check the survivors; return the outcome after it, and the points that broke some of them.

    The stronger suite attacks all the survivors where something speaks against the accuracy, where the sample shows
    that it would break too many others (`misses_too_many`), and where an interval asked for needs them all. For such an
    interval it attacks the broken examples as well, to count those that it does not break: they cost it little.

    Args:
        outcome: of a suite.
        gate: the stronger suite, and the size of the sample.
        threat: the threat set.
        split: the examples.
        seed: of the sample.
        attack: evaluates examples by a suite; the text names the attempt.
    """
    survivors = outcome.counts["survived"]
    if survivors == 0:
        return outcome, Carried(torch.zeros(0, *split.shape), [])
    attempts, taken = list[Attacked](), set[int]()

    def measure(ids: Sequence[int], name: str) -> tuple[set[int], set[int]]:
        new = [identifier for identifier in ids if identifier not in taken]
        taken.update(new)
        if new:
            attempts.append(attack(_with_ids(split, new), gate.suite, name))
        return _names(attempts, "broken"), _names(attempts, "unknown")

    sample, estimate, reason = Sample((), (), ()), None, "; ".join(outcome.doubts)
    if not reason:
        sample, estimate = attack_samples(outcome, gate, seed, lambda ids: measure(ids, f"sample-{len(ids)}"))
    breaks = len(_names(attempts, "broken"))
    if estimate is not None and gate.half_width is None and misses_too_many(outcome, estimate, breaks):
        share = survivors / outcome.n - estimate.value
        reason = f"it broke {breaks} of {len(sample.ids)} in a sample, which means {share:.1%} of all"
    if reason:
        measure(_ids(outcome, "survived"), "all")
    again = list[Attacked]()
    if gate.half_width is not None and outcome.counts["broken"]:
        again.append(attack(_with_ids(split, _ids(outcome, "broken")), gate.suite, "broken"))
    points = points_of(attempts, outcome, threat, split)
    points = replace(
        points, rows=[row | {"attack": row["attack"].removesuffix(f" under {threat}")} for row in points.rows]
    )
    result = broken_at(outcome, points)
    result = replace(
        result,
        attacks=(*outcome.attacks, *_records(outcome, gate.suite, [*attempts, *again], points)),
        warnings=tuple(dict.fromkeys((*result.warnings, *_warnings(attempts)))),
        doubts=tuple(dict.fromkeys((*outcome.doubts, *(text for source, _ in attempts for text in source.doubts)))),
        unverified=outcome.unverified + sum(source.unverified for source, _ in attempts),
        seconds=outcome.seconds + sum(source.seconds for source, _ in (*attempts, *again)),
    )
    if reason or estimate is None or not sample.others:
        estimate = replace(estimate or result.robust_accuracy, value=result.robust_accuracy.value)
        estimate = Interval(estimate.value, estimate.value, estimate.value, outcome.n)
    missed, open_ones = (len(_names(again, verdict)) / outcome.n for verdict in ("survived", "unknown"))
    estimate = Interval(estimate.value + missed, estimate.low + missed, estimate.high + missed + open_ones, outcome.n)
    record = GateRecord(gate.suite.name, survivors, len(sample.ids), breaks, reason, estimate, gate.half_width)
    return replace(result, gate=record), points


def _with_ids(split: Split, ids: Sequence[int]) -> Split:
    position = {name: row for row, name in enumerate(split.names().tolist())}
    return select(split, torch.tensor(sorted(position[name] for name in ids)))


def _ids(outcome: Outcome, *verdicts: str) -> list[int]:
    """Return the ids of the examples with one of these verdicts."""
    table = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
    return [name for name, verdict in table if verdict in verdicts]


def _names(attempts: Sequence[Attacked], verdict: str) -> set[int]:
    """Return the ids of the examples with a verdict; those misclassified without an attack are broken as well."""
    verdicts = (verdict, "misclassified") if verdict == "broken" else (verdict,)
    return {name for source, _ in attempts for name in _ids(source, *verdicts)}


def _records(outcome: Outcome, suite: Suite, attempts: Sequence[Attacked], points: Carried) -> tuple[AttackRecord, ...]:
    """Return what each attack of the stronger suite did."""
    standing, records = outcome.counts["survived"] + outcome.counts["unknown"], list[AttackRecord]()
    for number, attack in enumerate(suite.attacks):
        parts = [source.attacks[number] for source, _ in attempts]
        broken = sum(row["attack"] == attack.label for row in points.rows)
        standing -= broken
        records.append(
            AttackRecord(
                f"{suite.name}: {attack.label}",
                broken,
                standing / outcome.n,
                sum(part.seconds for part in parts),
                sum(part.forwards for part in parts),
                sum(part.backwards for part in parts),
            )
        )
    others = len(points.rows) - sum(record.broken for record in records)
    if others:
        name = f"{suite.name}: points of smaller radii"
        records.append(AttackRecord(name, others, (standing - others) / outcome.n, 0.0, 0, 0))
    return tuple(records)


def _warnings(attempts: Sequence[Attacked]) -> list[str]:
    texts = [text for source, _ in attempts for text in source.warnings]
    return [text for text in texts if not text.startswith(LOADED)]
