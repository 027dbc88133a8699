"""An order of attacks for a user's own networks, from the evaluations in run folders."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.evaluation.identity import settings_of
from unperturbed.evaluation.run_comparison import evaluations_of
from unperturbed.evaluation.stored import stored_table
from unperturbed.findings import Outcome
from unperturbed.suites.by_name import ATTACKS, ATTACKS_IN_L1, SUITES, find_suite
from unperturbed.types import Norm

Example = tuple[str, str, int]
"""An example under attack: the hash of the network's weights, the threat, and the id."""


@dataclass(frozen=True)
class Trials:
    """One attack with the same settings, in all evaluations that ran it.

    Attributes:
        attack: its label.
        name: its name for `--suite`; empty if it has none with these settings.
        suite: a suite that has it with these settings.
        attacked: the examples on which it ran.
        broken: those that it broke.
        runs: examples on which it ran, repetitions included.
        passes: forwards in all these runs.
    """

    attack: str
    name: str
    suite: str
    attacked: frozenset[Example]
    broken: frozenset[Example]
    runs: int
    passes: int

    @property
    def passes_each(self) -> float:
        """Forwards for each attacked example."""
        return self.passes / self.runs

    def with_more(self, others: "Trials") -> "Trials":
        """Return these trials and others of the same attack."""
        return replace(
            self,
            attacked=self.attacked | others.attacked,
            broken=self.broken | others.broken,
            runs=self.runs + others.runs,
            passes=self.passes + others.passes,
        )

    def breaks_per_pass(self, standing: frozenset[Example]) -> float:
        """Return the breaks for each pass among the standing examples on which it ran."""
        attacked = len(self.attacked & standing)
        return len(self.broken & standing) / (attacked * self.passes_each) if attacked else 0.0


@dataclass(frozen=True)
class Step:
    """An attack at its position in the suggested order.

    Attributes:
        attack: its label.
        name: its name for `--suite`; empty if it has none with these settings.
        suite: a suite that has it with these settings.
        standing: examples that no earlier attack of the order broke.
        attacked: of these, the examples on which it ever ran.
        broken: of these.
        passes: forwards for each attacked example, the mean over its evaluations.
    """

    attack: str
    name: str
    suite: str
    standing: int
    attacked: int
    broken: int
    passes: float


@dataclass(frozen=True)
class SuggestedOrder:
    """Attacks in the order of breaks per pass.

    Attributes:
        steps: the order, without attacks that break nothing more.
        idle: attacks that break no example that the order leaves standing, as "label of suite".
        standing: examples that the order leaves standing.
        evaluations: number of evaluations on which it rests.
    """

    steps: tuple[Step, ...]
    idle: tuple[str, ...]
    standing: int
    evaluations: int

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@checked()
def suggest_order(runs: Sequence[Path | str], threat: str | None = None) -> SuggestedOrder:
    """Return an order of the attacks in the stored evaluations of runs, greedily by breaks per pass.

    The next attack is the one with the most breaks per pass among the standing examples on which it ran (the greedy
    order of AutoAE, Liu et al. 2023, https://arxiv.org/abs/2211.12713). In a suite an attack runs only on the examples
    that the earlier ones left, so evaluations of each attack alone say more.

    Args:
        runs: evaluated run folders.
        threat: only evaluations under this threat, as text.

    Raises:
        InputError: for no run, one without a finished evaluation, and if no attack ran on an example.
    """
    if not runs:
        raise InputError("An order of attacks needs evaluations: give an evaluated run folder or more.")
    trials, used = dict[str, Trials](), set[Path]()
    for run in runs:
        for summary, outcome in sorted(evaluations_of(Path(run)).items()):
            for settings, more in _trials(summary, outcome) if threat in (None, outcome.threat) else ():
                trials[settings] = trials[settings].with_more(more) if settings in trials else more
                used.add(summary)
    if not trials:
        under = f" under {threat}" if threat else ""
        raise InputError(f"In no evaluation of the runs{under} did an attack run on an example: evaluate them first.")
    return _ordered(list(trials.values()), len(used))


def _trials(summary: Path, outcome: Outcome) -> Iterator[tuple[str, Trials]]:
    """Yield each attack of the suite with its settings as text: not the check of survivors, nor points of others."""
    table, settings = stored_table(summary, outcome.n), _settings(outcome)
    if "draws" in table:
        return
    network = str(outcome.environment["weights"])
    broken_by = {
        (network, outcome.threat, name): attack
        for name, attack, verdict in zip(table["id"], table["attack"], table["verdict"], strict=True)
        if verdict in ("broken", "survived")
    }
    standing = frozenset(broken_by)
    others = ("points of ", *([] if outcome.gate is None else [f"{outcome.gate.suite}: "]))
    for record in outcome.attacks:
        if standing and not record.name.startswith(others):
            broken = frozenset(example for example in standing if broken_by[example] == record.name)
            text = settings.get(record.name, f"{record.name} of {outcome.environment['attacks']}")
            name = record.name.lower() if text in _named(record.name) else ""
            yield (
                text,
                Trials(record.name, name, outcome.suite, standing, broken, len(standing), record.forwards),
            )
            standing -= broken


def _settings(outcome: Outcome) -> dict[str, str]:
    """Return the settings of each attack by label, for a suite that this version has with the same settings."""
    if outcome.suite not in SUITES and not outcome.suite.startswith("custom-"):
        return {}
    suite = find_suite(outcome.suite.removeprefix("custom-").replace("_", ","))
    suite = suite.against(cast(Norm, outcome.threat.partition(":")[0]), classes=0)
    if settings_of(suite) != outcome.environment["attacks"]:
        return {}
    return {attack.label: str(attack) for attack in suite.attacks}


def _named(label: str) -> tuple[str, ...]:
    """Return the settings of the attacks that a label names on the command line: in L1, and in other norms."""
    return tuple(str(attacks[label.lower()]) for attacks in (ATTACKS, ATTACKS_IN_L1) if label.lower() in attacks)


def _ordered(trials: list[Trials], evaluations: int) -> SuggestedOrder:
    """Return the greedy order of attacks; of two with as many breaks per pass, the one with more breaks is first."""
    standing = frozenset[Example]().union(*(trial.attacked for trial in trials))
    left, steps = list(trials), list[Step]()
    while left:
        best = max(left, key=lambda trial: (trial.breaks_per_pass(standing), len(trial.broken & standing)))
        broken = best.broken & standing
        if not broken:
            break
        left.remove(best)
        attacked = len(best.attacked & standing)
        steps.append(Step(best.attack, best.name, best.suite, len(standing), attacked, len(broken), best.passes_each))
        standing -= broken
    idle = tuple(f"{trial.attack} of {trial.suite}" for trial in left)
    return SuggestedOrder(tuple(steps), idle, len(standing), evaluations)
