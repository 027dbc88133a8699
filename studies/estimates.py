"""How often the interval of a gate's estimate covers the truth, and how many survivors it takes: samples drawn anew.

From a finished evaluation by `standard` and one by `fast` of the same examples, the samples of `fast` are drawn again
with many seeds, by the code of the gate; the verdicts are the stored ones. Two rows each: the sample that is the
default, whose truth is the accuracy if `standard` attacked all survivors of `fast`, and the one that reaches the
half-width, whose truth is the accuracy under `standard` alone. A larger test set consists of copies of the examples.

    python studies/estimates.py runs/suites/at runs/suites/l2 --draws 1000 --n 10000
    python studies/estimates.py --limits

`--limits` prints the half-widths that samples of 350 survivors allow.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from unperturbed.attacks.gradient import Gate
from unperturbed.evaluation.gate import NEAREST, OF_A_LOOK, attack_samples, misses_too_many
from unperturbed.evaluation.stored import read_summary, stored_table
from unperturbed.evaluation.union import check_same
from unperturbed.findings import Interval, Outcome, Verdict
from unperturbed.statistics.finite import marked_in_population
from unperturbed.suites.autoattack import STANDARD

HEADER = (
    "| store | n | survivors | `standard` breaks | sample | sampled, mean (most) | at most 350 | all attacked "
    "| covered | half-width, mean | bias | passes |\n" + 12 * "|---" + "|"
)
GATES = {"5%, 16 at least": Gate(STANDARD), "half-width 0.5 points": Gate(STANDARD, half_width=0.005)}
LIMIT_HEADER = "| survivors | breaks none | breaks 1 | breaks 2 | breaks 3 |\n" + 5 * "|---" + "|"


@dataclass(frozen=True)
class Population:
    """Survivors of a suite, with the verdicts of a stronger one on all of them.

    Attributes:
        outcome: of the suite, before its check.
        broken: ids of the survivors that the stronger suite breaks.
        undecided: ids of those that it leaves unknown.
        missed: number of examples that the suite breaks and the stronger one leaves.
        passes: forwards of the suite without its check, for each example.
        again: forwards of the stronger suite on the examples that the suite breaks, for each example of all.
        stronger_passes: forwards of the stronger suite, for each example.
    """

    outcome: Outcome
    broken: frozenset[int]
    undecided: frozenset[int]
    missed: int
    passes: float
    again: float
    stronger_passes: float

    def truth(self, gate: Gate) -> float:
        """Return the robust accuracy if the stronger suite attacked all survivors; with a half-width, it alone."""
        alone = 0 if gate.half_width is None else self.missed
        return (self.outcome.counts["survived"] - len(self.broken) + alone) / self.outcome.n


@dataclass(frozen=True)
class Draw:
    """A sample drawn again.

    Attributes:
        estimate: with its interval; a point where all survivors were attacked.
        size: the number of sampled survivors.
        whole: whether all survivors were attacked.
    """

    estimate: Interval
    size: int
    whole: bool


def read_population(folder: Path, suite: str = "fast", stronger: str = "standard") -> Population:
    """Return the population of two evaluations stored in a folder."""
    outcome, full = (read_summary(folder / f"{name}.json") for name in (suite, stronger))
    check_same(outcome, full)
    table, verdicts = (stored_table(folder / f"{name}.json", outcome.n) for name in (suite, stronger))
    of_stronger = dict(zip(verdicts["id"], verdicts["verdict"], strict=True))
    queries = dict(zip(verdicts["id"], verdicts["queries"], strict=True))
    ids: dict[str, list[int]] = {"survived": [], "broken": [], "misclassified": [], "unknown": []}
    for name, verdict in zip(table["id"], table["verdict"], strict=True):
        ids[verdict].append(name)
    counts: dict[Verdict, int] = {verdict: table["verdict"].count(verdict) for verdict in outcome.counts}
    attacks = [record for record in outcome.attacks if not record.name.startswith(f"{stronger}: ")]
    return Population(
        outcome=replace(outcome, counts=counts, examples=table),
        broken=frozenset(name for name in ids["survived"] if of_stronger[name] == "broken"),
        undecided=frozenset(name for name in ids["survived"] if of_stronger[name] == "unknown"),
        missed=sum(of_stronger[name] == "survived" for name in ids["broken"]),
        passes=sum(record.forwards for record in attacks) / outcome.n,
        again=sum(queries[name] for name in ids["broken"]) / outcome.n,
        stronger_passes=sum(record.forwards for record in full.attacks) / full.n,
    )


def copied(population: Population, copies: int) -> Population:
    """Return the population of so many copies of each example."""
    outcome = population.outcome
    step = max(outcome.examples["id"]) + 1
    table = {name: list(values) * copies for name, values in outcome.examples.items()}
    table["id"] = [name + copy * step for copy in range(copies) for name in outcome.examples["id"]]

    def of_all(ids: frozenset[int]) -> frozenset[int]:
        return frozenset(name + copy * step for copy in range(copies) for name in ids)

    counts: dict[Verdict, int] = {verdict: count * copies for verdict, count in outcome.counts.items()}
    return replace(
        population,
        outcome=replace(outcome, n=outcome.n * copies, counts=counts, examples=table),
        broken=of_all(population.broken),
        undecided=of_all(population.undecided),
        missed=population.missed * copies,
    )


def draw(population: Population, gate: Gate, seed: int) -> Draw:
    """Return the estimate of a gate with this seed, as an evaluation makes it."""
    outcome, broken = population.outcome, set[int]()

    def attack(ids: Sequence[int]) -> tuple[set[int], set[int]]:
        broken.update(population.broken.intersection(ids))
        return broken, {*population.undecided.intersection(ids)}

    sample, estimate = attack_samples(outcome, gate, seed, attack)
    too_many = gate.half_width is None and misses_too_many(outcome, estimate, len(broken))
    whole, truth = too_many or not sample.others, population.truth(gate)
    missed = 0.0 if gate.half_width is None else population.missed / outcome.n
    estimate = Interval(estimate.value + missed, estimate.low + missed, estimate.high + missed, outcome.n)
    if whole:
        estimate = Interval(truth, truth, truth, outcome.n)
    return Draw(estimate, len(sample.ids), whole)


def rows(name: str, population: Population, draws: int) -> Iterator[str]:
    """Yield a row for each kind of sample; passes are relative to those of the stronger suite."""
    outcome = population.outcome
    survivors = outcome.counts["survived"]
    for kind, gate in GATES.items():
        truth = population.truth(gate)
        drawn = [draw(population, gate, seed) for seed in range(draws)]
        estimates, sizes = [one.estimate for one in drawn], [one.size for one in drawn]
        covered = fmean(one.low - 1e-9 <= truth <= one.high + 1e-9 for one in estimates)
        attacked = fmean(survivors if one.whole else one.size for one in drawn)
        again = 0.0 if gate.half_width is None else population.again
        passes = population.passes + population.stronger_passes * attacked / survivors + again
        cells = (
            *(name, str(outcome.n), str(survivors), str(len(population.broken)), kind),
            *(f"{fmean(sizes):.0f} ({max(sizes)})", f"{fmean(size <= 350 for size in sizes):.1%}"),
            *(f"{fmean(one.whole for one in drawn):.1%}", f"{covered:.1%}"),
            *(f"{100 * fmean((one.high - one.low) / 2 for one in estimates):.2f}",),
            *(f"{100 * (fmean(one.value for one in estimates) - truth):+.3f}",),
            f"{passes / population.stronger_passes:.2f}",
        )
        yield f"| {' | '.join(cells)} |"


def limit(survivors: int, n: int, breaks: int, sampled: int = 350) -> float:
    """Return the half-width of an estimate, as a share of n, with so many breaks among the random survivors."""
    nearest = min(sampled // 2, NEAREST)
    low, high = marked_in_population(breaks, sampled - nearest, survivors - nearest, OF_A_LOOK)
    return (high - low) / n / 2


def limit_rows(n: int = 10_000) -> Iterator[str]:
    """Yield the half-widths by the share of survivors, in percentage points."""
    for share in (1.0, 0.9, 0.7, 0.5, 0.3):
        widths = [f"{100 * limit(round(share * n), n, breaks):.2f}" for breaks in range(4)]
        yield f"| {share:.0%} of {n:,} | {' | '.join(widths)} |"


def main() -> None:
    """Print the rows of each store, or the limits."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("stores", type=Path, nargs="*", help="folders with fast.json and standard.json")
    options.add_argument("--draws", type=int, default=1000)
    options.add_argument("--n", type=int, default=10_000, help="size of the larger test set")
    options.add_argument("--limits", action="store_true")
    parsed = options.parse_args()
    if parsed.limits:
        print("\n".join([LIMIT_HEADER, *limit_rows(parsed.n)]))
    if parsed.stores:
        print(HEADER)
    for folder in parsed.stores:
        population = read_population(folder)
        copies = max(parsed.n // population.outcome.n, 1)
        for number in dict.fromkeys((1, copies)):
            print("\n".join(rows(folder.name, copied(population, number), parsed.draws)), flush=True)


if __name__ == "__main__":
    main()
