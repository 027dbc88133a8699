"""Evaluated networks compared example by example: differences of clean and robust accuracy, and their examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import GateRecord, Outcome, Shown
from unperturbed.statistics.paired import interval, mcnemar, share_interval


@dataclass(frozen=True)
class Difference:
    """The accuracy of the second network less that of the first, on the same examples.

    Attributes:
        value: the difference, in shares.
        low: lower end of its 95% interval. An unknown example counts against its network at one end of the interval and
            for it at the other.
        high: upper end.
        gained: examples that only the second network classifies correctly; over several seeds, None.
        lost: examples that only the first network classifies correctly.
        p: of McNemar's exact test; over several seeds, None.
    """

    value: float
    low: float
    high: float
    gained: int | None = None
    lost: int | None = None
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ClassDifference:
    """The accuracies of both networks on the examples of one class, means over seeds."""

    label: int
    n: int
    clean: tuple[float, float]
    robust: tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two networks, or two groups of networks that differ in their seeds only.

    Attributes:
        names: of the first and the second.
        seeds: networks in each group.
        n: examples in both evaluations.
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


@dataclass(frozen=True, repr=False)
class PairedComparison(Shown):
    """Pairwise comparisons of networks under one threat and suite.

    Attributes:
        threat: the threat set, as text.
        suite: of all evaluations.
        pairs: of each network with each later one.
        warnings: reasons to doubt the differences.
        doubts: by network, reasons why its robust accuracy is not credible; only networks with reasons.
    """

    threat: str
    suite: str
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the differences of each pair, in points with their 95% intervals."""
        return "; ".join(
            f"{second} less {first}: clean {_points(pair.clean)}, robust {_points(pair.robust)}, n={pair.n}"
            for pair in self.pairs
            for first, second in (pair.names,)
        )


def _points(difference: Difference) -> str:
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


@checked()
def compare(networks: Mapping[str, Outcome | Sequence[Outcome]]) -> PairedComparison:
    """Return the paired differences between evaluated networks, by name; several outcomes of one name are its seeds.

    Examples are matched by id; those missing in an evaluation are left out, with a warning. For one network per name,
    intervals cover the choice of examples (Bonett and Price 2012); for several, of examples and seeds.

    Raises:
        InputError: for fewer than two names, evaluations under different threats, suites, settings of attacks or data,
            means over draws together with verdicts, different numbers of seeds, and no common example.
    """
    groups = {name: [value] if isinstance(value, Outcome) else list(value) for name, value in networks.items()}
    if len(groups) < 2 or not all(groups.values()):
        raise InputError(f"A comparison takes two evaluated networks or more, not {len(groups)}: {', '.join(groups)}.")
    outcomes = [outcome for group in groups.values() for outcome in group]
    _check(groups, outcomes)
    common = set.intersection(*(set(outcome.examples["id"]) for outcome in outcomes))
    if not common:
        raise InputError("No example was evaluated on all of these networks: evaluate the same examples.")
    ids = sorted(common)
    warnings = list(dict.fromkeys(text for outcome in outcomes for text in outcome.warnings))
    warnings = [*_other_code(outcomes), *warnings]
    largest = max(outcome.n for outcome in outcomes)
    if largest > len(ids):
        warnings.insert(0, f"Only {len(ids)} of up to {largest} examples were evaluated on all of the networks.")
    warnings.extend(_unequal_checks(groups))
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
    """The correctness of one network, one entry per example in the order of the ids: 1, 0, or NaN if unknown."""

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
    """Raise InputError for evaluations that cannot be compared."""
    first = outcomes[0]
    for outcome in outcomes[1:]:
        for noun, reference, second in (
            ("threats", first.threat, outcome.threat),
            ("suites", first.suite, outcome.suite),
            ("data", first.environment.get("data"), outcome.environment.get("data")),
            ("bounds", first.environment.get("bounds"), outcome.environment.get("bounds")),
            (f"settings of {first.suite}", _settings(first)[0], _settings(outcome)[0]),
        ):
            if reference != second:
                raise InputError(f"The networks were evaluated with different {noun}: {reference} and {second}.")
    if any("draws" in outcome.examples for outcome in outcomes):
        raise InputError("Means over draws have no verdict per example: compare another suite than rand.")
    seeds = {name: len(group) for name, group in groups.items()}
    if len(set(seeds.values())) > 1:
        raise InputError(f"The numbers of seeds differ ({seeds}): give as many networks of each, in the same order.")


def _settings(outcome: Outcome) -> tuple[str, str]:
    """Return the settings of the attacks as text, and a hash of their code; both empty if unknown."""
    settings, _, code = str(outcome.environment.get("attacks", "")).rpartition(" ")
    return settings, code


def _other_code(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a warning if the same attacks had different code."""
    if len({_settings(outcome)[1] for outcome in outcomes}) == 1:
        return []
    return ["The code of the attacks differs (other versions?): evaluate the networks again with the same one."]


def _unequal_checks(groups: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Return a warning where a stronger suite attacked more of the survivors of some networks than of others."""
    levels = {name: [_attacked(outcome.gate) for outcome in group] for name, group in groups.items()}
    for level, part, rest in ((2, "all", "a sample at most"), (1, "a sample of the", "none")):
        stronger = [name for name, of_group in levels.items() if max(of_group) >= level]
        if stronger and min(map(min, levels.values())) < level:
            return [
                f"A stronger suite attacked {part} survivors of {', '.join(stronger)}, and {rest} of the others: their "
                "robust accuracies may be too high beside these. Compare evaluations by the suite standard to be sure."
            ]
    return []


def _attacked(gate: GateRecord | None) -> int:
    """Return 2 if a stronger suite attacked all survivors, 1 for a sample of them, and 0 for none."""
    return 0 if gate is None else 2 if gate.reason else 1


def _pair(
    first: str, second: str, first_runs: Sequence[_Table], second_runs: Sequence[_Table], ids: Sequence[int]
) -> Pair:
    labels = first_runs[0].labels
    if any((table.labels != labels).any() for table in (*first_runs, *second_runs)):
        raise InputError(f"Examples with the same id have different labels in {first} and {second}: evaluate the same.")
    clean, robust = (
        [np.array([getattr(table, kind) for table in tables]) for tables in (first_runs, second_runs)]
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
        len(first_runs),
        len(ids),
        _difference(*clean),
        _difference(*robust),
        tuple(per_class),
        tuple(name for name, only in zip(ids, only_first, strict=True) if only),
        tuple(name for name, only in zip(ids, only_second, strict=True) if only),
    )


def _difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return the second's accuracy less the first's; both (seeds, examples), NaN if unknown."""
    value = float((np.nan_to_num(second) - np.nan_to_num(first)).mean())
    lowest = np.nan_to_num(second, nan=0.0) - np.nan_to_num(first, nan=1.0)
    highest = np.nan_to_num(second, nan=1.0) - np.nan_to_num(first, nan=0.0)
    if len(first) > 1:
        _, low, _ = interval(torch.from_numpy(lowest))
        _, _, high = interval(torch.from_numpy(highest))
        return Difference(value, low, high)
    n = first.shape[1]
    low, _ = share_interval(int((lowest > 0).sum()), int((lowest < 0).sum()), n)
    _, high = share_interval(int((highest > 0).sum()), int((highest < 0).sum()), n)
    decided = ~(np.isnan(first[0]) | np.isnan(second[0]))
    gained, lost = (int((decided & (a[0] == 1) & (b[0] == 0)).sum()) for a, b in ((second, first), (first, second)))
    return Difference(value, low, high, gained, lost, mcnemar(gained, lost))
