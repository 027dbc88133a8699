"""Evaluated networks compared example by example: differences of clean and robust accuracy, and their examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import Outcome
from unperturbed.statistics.paired import interval, mcnemar, share_interval


@dataclass(frozen=True)
class Difference:
    """The accuracy of the second network less that of the first, on the same examples.

    Attributes:
        value: the difference, in shares.
        low: lower end of its 95% interval. An example that could not be evaluated counts against its own network for
            one end of the interval and for it at the other.
        high: upper end.
        gained: examples that the second network alone gets right; over several seeds, None.
        lost: examples that the first network alone gets right.
        p: of McNemar's exact test; over several seeds, None.
    """

    value: float
    low: float
    high: float
    gained: int | None = None
    lost: int | None = None
    p: float | None = None


@dataclass(frozen=True)
class ClassDifference:
    """The accuracies of both networks on the examples of one class, means over seeds."""

    label: int
    n: int
    clean: tuple[float, float]
    robust: tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two networks, or two groups of networks that differ in their seed alone.

    Attributes:
        names: of the first and the second.
        seeds: networks in each group.
        n: examples that both were evaluated on.
        clean: difference of clean accuracy.
        robust: difference of robust accuracy.
        classes: accuracies per class.
        only_first: ids of the examples that survive on the first alone (in every seed against none).
        only_second: likewise, on the second alone.
    """

    names: tuple[str, str]
    seeds: int
    n: int
    clean: Difference
    robust: Difference
    classes: tuple[ClassDifference, ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


@dataclass(frozen=True)
class PairedComparison:
    """Networks compared two by two under one threat and suite.

    Attributes:
        threat: the threat set, as text.
        suite: that all were evaluated with.
        pairs: of each network with each later one.
        warnings: what makes the differences doubtful.
        doubts: by network, why its robust accuracy is not to be believed; only those with such reasons.
    """

    threat: str
    suite: str
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@checked()
def compare(networks: Mapping[str, Outcome | Sequence[Outcome]]) -> PairedComparison:
    """Return the paired differences between evaluated networks, by name; several outcomes of one name are its seeds.

    Examples are matched by id; those that not all networks were evaluated on are left out, with a warning. For one
    network a name, intervals are for other examples (Bonett and Price 2012); for several they are for other examples
    and seeds.

    Raises:
        InputError: for fewer than two names, evaluations under different threats, suites or data, means over draws
            together with verdicts, different numbers of seeds, and no common example.
    """
    groups = {name: [given] if isinstance(given, Outcome) else list(given) for name, given in networks.items()}
    if len(groups) < 2 or not all(groups.values()):
        raise InputError(f"A comparison takes two evaluated networks or more, not {len(groups)}: {', '.join(groups)}.")
    outcomes = [outcome for group in groups.values() for outcome in group]
    _check(groups, outcomes)
    common = set.intersection(*(set(outcome.examples["id"]) for outcome in outcomes))
    if not common:
        raise InputError("No example was evaluated on all of these networks: evaluate the same examples.")
    ids = sorted(common)
    warnings = list(dict.fromkeys(f"{text}" for outcome in outcomes for text in outcome.warnings))
    largest = max(outcome.n for outcome in outcomes)
    if largest > len(ids):
        warnings.insert(0, f"Only {len(ids)} of up to {largest} examples were evaluated on all of the networks.")
    tables = {name: [_Table.of(outcome, ids) for outcome in group] for name, group in groups.items()}
    pairs = [_pair(first, second, tables[first], tables[second], ids) for first, second in combinations(groups, 2)]
    doubts = {
        name: tuple(dict.fromkeys(text for outcome in group for text in outcome.doubts))
        for name, group in groups.items()
        if any(outcome.doubts for outcome in group)
    }
    return PairedComparison(outcomes[0].threat, outcomes[0].suite, tuple(pairs), tuple(warnings), doubts)


@dataclass(frozen=True)
class _Table:
    """What one network gets right, an entry an example in the order of the ids: 1, 0, or NaN where nobody knows."""

    labels: np.ndarray
    clean: np.ndarray
    robust: np.ndarray

    @staticmethod
    def of(outcome: Outcome, ids: Sequence[int]) -> "_Table":
        rows = {name: row for row, name in enumerate(outcome.examples["id"])}
        order = [rows[name] for name in ids]
        margins = np.array(outcome.examples["clean_margin"], dtype=float)[order]
        verdicts = np.array(outcome.examples["verdict"])[order]
        clean = np.where(np.isnan(margins), np.nan, margins < 0)
        robust = np.where(verdicts == "unknown", np.nan, verdicts == "survived")
        return _Table(np.array(outcome.examples["label"])[order], clean, robust)


def _check(groups: Mapping[str, Sequence[Outcome]], outcomes: Sequence[Outcome]) -> None:
    """Refuse evaluations that cannot be compared."""
    first = outcomes[0]
    for outcome in outcomes[1:]:
        for noun, one, other in (
            ("threats", first.threat, outcome.threat),
            ("suites", first.suite, outcome.suite),
            ("data", first.environment.get("data"), outcome.environment.get("data")),
        ):
            if one != other:
                raise InputError(f"The networks were evaluated with different {noun}: {one} and {other}.")
    if any("draws" in outcome.examples for outcome in outcomes):
        raise InputError("Means over draws have no verdict per example: compare another suite than rand.")
    seeds = {name: len(group) for name, group in groups.items()}
    if len(set(seeds.values())) > 1:
        raise InputError(f"The numbers of seeds differ ({seeds}): give as many networks of each, in the same order.")


def _pair(first: str, second: str, one: Sequence[_Table], other: Sequence[_Table], ids: Sequence[int]) -> Pair:
    labels = one[0].labels
    if any((table.labels != labels).any() for table in (*one, *other)):
        raise InputError(f"Examples with the same id have different labels in {first} and {second}: evaluate the same.")
    clean, robust = (
        [np.array([getattr(table, kind) for table in tables]) for tables in (one, other)]
        for kind in ("clean", "robust")
    )
    survives = [np.nan_to_num(values, nan=0.0) for values in robust]
    only_first = survives[0].all(axis=0) & ~survives[1].any(axis=0)
    only_second = survives[1].all(axis=0) & ~survives[0].any(axis=0)
    per_class = []
    for label in np.unique(labels).tolist():
        rows = labels == label
        means = [[float(np.nan_to_num(values[:, rows]).mean()) for values in pair] for pair in (clean, robust)]
        per_class.append(
            ClassDifference(label, int(rows.sum()), (means[0][0], means[0][1]), (means[1][0], means[1][1]))
        )
    return Pair(
        (first, second),
        len(one),
        len(ids),
        _difference(*clean),
        _difference(*robust),
        tuple(per_class),
        tuple(name for name, only in zip(ids, only_first, strict=True) if only),
        tuple(name for name, only in zip(ids, only_second, strict=True) if only),
    )


def _difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """Return the second's accuracy less the first's; both (seeds, examples), NaN where nobody knows."""
    value = float((np.nan_to_num(other) - np.nan_to_num(one)).mean())
    lowest = np.nan_to_num(other, nan=0.0) - np.nan_to_num(one, nan=1.0)
    highest = np.nan_to_num(other, nan=1.0) - np.nan_to_num(one, nan=0.0)
    if len(one) > 1:
        _, low, _ = interval(torch.from_numpy(lowest))
        _, _, high = interval(torch.from_numpy(highest))
        return Difference(value, low, high)
    n = one.shape[1]
    low, _ = share_interval(int((lowest > 0).sum()), int((lowest < 0).sum()), n)
    _, high = share_interval(int((highest > 0).sum()), int((highest < 0).sum()), n)
    known = ~(np.isnan(one[0]) | np.isnan(other[0]))
    gained, lost = (int((known & (a[0] == 1) & (b[0] == 0)).sum()) for a, b in ((other, one), (one, other)))
    return Difference(value, low, high, gained, lost, mcnemar(gained, lost))
