"""The comparison of evaluated run folders by an evaluation that all of them have."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.evaluation.comparison import PairedComparison, compare
from unperturbed.evaluation.stored import stored_evaluations, with_examples
from unperturbed.findings import Outcome


class _Kind(NamedTuple):
    """The settings that two compared evaluations share: suite, threat, and the hash of their examples."""

    suite: str
    threat: str
    data: str


@checked()
def compare_runs(
    runs: Sequence[Path | str | Sequence[Path | str]], suite: str | None = None, threat: str | None = None
) -> PairedComparison:
    """Return the paired differences between evaluated run folders, like `compare` for outcomes.

    It compares the evaluations by the suite with the most forward passes that all runs have, on the most examples,
    the same under the same threat.

    Args:
        runs: two or more run folders; a sequence of folders is one method trained with several seeds.
        suite: only evaluations by this suite.
        threat: only evaluations under this threat, as text.

    Raises:
        InputError: for fewer than two runs, one given twice, a folder without a finished evaluation, runs that have no
            evaluation of one kind in common, and as `compare` does.
    """
    groups = [[run] if isinstance(run, Path | str) else list(run) for run in runs]
    folders = [str(folder) for group in groups for folder in group]
    if len(groups) < 2 or len(set(folders)) < len(folders):
        names = [",".join(map(str, group)) for group in groups]
        raise InputError(f"A comparison is between different runs: give two run folders or more, not {names}.")
    chosen = _chosen({folder: evaluations_of(Path(folder)) for folder in folders}, suite, threat)
    return compare({",".join(map(str, group)): [chosen[str(folder)] for folder in group] for group in groups})


def evaluations_of(run: Path) -> dict[Path, Outcome]:
    """Return the finished evaluations of a run folder by summary; raises InputError where there are none."""
    if not run.is_dir():
        raise InputError(f"{run} is no run folder: give a folder that `unperturbed train` has made.")
    if not (outcomes := stored_evaluations(run)):
        raise InputError(f"{run} holds no finished evaluation: unperturbed evaluate {shlex.quote(str(run))}")
    return outcomes


def _chosen(stored: Mapping[str, Mapping[Path, Outcome]], suite: str | None, threat: str | None) -> dict[str, Outcome]:
    """Return one evaluation of each run, all of one kind: with the most forward passes, then of the most examples."""
    kinds = {run: {_kind(outcome): (path, outcome) for path, outcome in found.items()} for run, found in stored.items()}
    common = set.intersection(*(set(kind) for kind in kinds.values()))
    common = {kind for kind in common if suite in (None, kind.suite) and threat in (None, kind.threat)}
    if not common:
        criteria = " of ".join(filter(None, [f"by {suite} " if suite else "", f"{threat} " if threat else ""]))
        lists = "; ".join(
            f"{run} has {', '.join(f'{_in_words(outcome)} ({path.parent.name})' for path, outcome in found.values())}"
            for run, found in kinds.items()
        )
        raise InputError(
            f"The runs have no evaluation {criteria}in common ({lists}): evaluate all of them by the same suite and "
            "threat, on the same examples of the same data."
        )
    first = next(iter(kinds.values()))
    best = max(sorted(common), key=lambda kind: (sum(a.forwards for a in first[kind][1].attacks), first[kind][1].n))
    return {run: with_examples(*evaluations[best]) for run, evaluations in kinds.items()}


def _kind(outcome: Outcome) -> _Kind:
    return _Kind(outcome.suite, outcome.threat, str(outcome.environment["data"]))


def _in_words(outcome: Outcome) -> str:
    return f"{outcome.suite} under {outcome.threat} on {outcome.n} examples"
