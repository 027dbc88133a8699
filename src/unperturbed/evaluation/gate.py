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
from unperturbed.evaluation.evidence import FALLEN
from unperturbed.evaluation.measurement import LOADED
from unperturbed.findings import AttackRecord, GateRecord, Interval, Outcome
from unperturbed.noise import Noise
from unperturbed.statistics.finite import marked_in_population
from unperturbed.threat import Threat

NEAREST = 25
"""Survivors nearest to a break that are in every sample; in a small one, half of it."""
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


def sample_survivors(outcome: Outcome, size: int, seed: int) -> Sample:
    """Return a sample of the survivors of an outcome, which does not depend on their order.

    Half of it, `NEAREST` at most, are the survivors of largest margin; the others are drawn at random.
    """
    table = zip(outcome.examples["id"], outcome.examples["verdict"], outcome.examples["margin"], strict=True)
    ranked = [name for _, name in sorted((-margin, name) for name, verdict, margin in table if verdict == "survived")]
    count = min(size // 2, NEAREST)
    nearest, far = ranked[:count], sorted(ranked[count:])
    draws = Noise.of(seed, torch.tensor(far, dtype=torch.int64)).uniform((1,)).flatten().tolist()
    shuffled = [name for _, name in sorted(zip(draws, far, strict=True))]
    drawn = min(max(size - count, 0), len(far))
    return Sample(tuple(nearest), tuple(shuffled[:drawn]), tuple(shuffled[drawn:]))


def sample_size(survivors: int, n: int, gate: Gate) -> int:
    """Return the size of the first sample: the gate's share, or large enough for a half-width if nothing breaks."""
    half_width, least = gate.half_width, min(gate.least, survivors)
    if half_width is None:
        return min(max(least, math.ceil(gate.share * survivors)), survivors)

    def suffices(size: int) -> bool:
        nearest = min(size // 2, NEAREST)
        most = marked_in_population(0, size - nearest, survivors - nearest, OF_A_LOOK)[1]
        return most / n / 2 <= half_width

    sizes = range(least, survivors)
    return least + bisect_left(sizes, True, key=suffices)


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


def larger_sample(outcome: Outcome, sample: Sample, estimate: Interval, gate: Gate, seed: int) -> Sample | None:
    """Return the next sample for an estimate that is wider than the gate allows; None if none is needed or left."""
    half_width = round((estimate.high - estimate.low) / 2, 12)  # differences of shares such as 1 - 0.99 are not exact
    is_narrow = gate.half_width is None or half_width <= gate.half_width
    if is_narrow or not sample.others:
        return None
    return sample_survivors(outcome, min(math.ceil(1.3 * len(sample.ids)), outcome.counts["survived"]), seed)


def through_gate(
    outcome: Outcome,
    gate: Gate,
    threat: Threat,
    split: Split,
    seed: int,
    attack: Callable[[Split, Suite, str], Attacked],
) -> tuple[Outcome, Carried]:
    """Check the survivors; return the outcome after it, and the points that broke some of them.

    The stronger suite attacks all the survivors where something speaks against the accuracy, and where the sample shows
    that it would break more than `FALLEN` of all examples, or where an interval asked for needs them all.

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

    def measure(ids: Sequence[int], name: str) -> None:
        new = [identifier for identifier in ids if identifier not in taken]
        taken.update(new)
        if new:
            attempts.append(attack(_with_ids(split, new), gate.suite, name))

    sample, estimate = sample_survivors(outcome, sample_size(survivors, outcome.n, gate), seed), None
    reason = "; ".join(outcome.doubts)
    while not reason:
        measure(sample.ids, f"sample-{len(sample.ids)}")
        broken = _names(attempts, "broken")
        estimate = estimated(outcome, sample, broken, _names(attempts, "unknown"), gate.half_width)
        if gate.half_width is None:
            further = survivors / outcome.n - estimate.value
            if further > FALLEN:
                reason = f"it broke {len(broken)} of {len(sample.ids)} in a sample, which means {further:.1%} of all"
            break
        larger = larger_sample(outcome, sample, estimate, gate, seed)
        if larger is None:
            break
        sample = larger
    sampled, breaks = len(sample.ids) if attempts else 0, len(_names(attempts, "broken"))
    if reason:
        names = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
        measure([name for name, verdict in names if verdict == "survived"], "all")
    points = points_of(attempts, outcome, threat, split)
    points = replace(
        points, rows=[row | {"attack": row["attack"].removesuffix(f" under {threat}")} for row in points.rows]
    )
    result = broken_at(outcome, points)
    result = replace(
        result,
        attacks=(*outcome.attacks, *_records(outcome, gate.suite, attempts, points)),
        warnings=tuple(dict.fromkeys((*result.warnings, *_warnings(attempts)))),
        doubts=tuple(dict.fromkeys((*outcome.doubts, *(text for source, _ in attempts for text in source.doubts)))),
        unverified=outcome.unverified + sum(source.unverified for source, _ in attempts),
        seconds=outcome.seconds + sum(source.seconds for source, _ in attempts),
    )
    if reason or estimate is None or not sample.others:
        estimate = replace(estimate or result.robust_accuracy, value=result.robust_accuracy.value)
        estimate = Interval(estimate.value, estimate.value, estimate.value, outcome.n)
    record = GateRecord(gate.suite.name, survivors, sampled, breaks, reason, estimate, gate.half_width)
    return replace(result, gate=record), points


def _with_ids(split: Split, ids: Sequence[int]) -> Split:
    position = {name: row for row, name in enumerate(split.names().tolist())}
    return select(split, torch.tensor(sorted(position[name] for name in ids)))


def _names(attempts: Sequence[Attacked], verdict: str) -> set[int]:
    """Return the ids of the examples with a verdict; those misclassified without an attack are broken as well."""
    verdicts = (verdict, "misclassified") if verdict == "broken" else (verdict,)
    return {
        name
        for source, _ in attempts
        for name, of_example in zip(source.examples["id"], source.examples["verdict"], strict=True)
        if of_example in verdicts
    }


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
