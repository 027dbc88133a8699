"""Compare evaluated runs example by example: paired differences with intervals, and where they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, say, table
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.errors import InputError
from unperturbed.findings import Outcome, doubted

if TYPE_CHECKING:
    from unperturbed.evaluation.comparison import Difference, Pair

POSITIONAL = "runs..."
SHOWN = 10
"""Ids of examples that are printed; `--json` has all of them."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("compare", str(__doc__))
    made.add_argument(
        "runs", type=str, nargs="*", help="two evaluated run folders or more; A0,A1,A2: one method with three seeds"
    )
    made.add_argument("--suite", type=str | None, help="which evaluation (default: the strongest that all have)")
    made.add_argument("--threat", type=str | None, help="which evaluation, by norm and radius")
    return made


def run(given: Parsed) -> Result:
    """Read the evaluations, and return the differences between each two runs."""
    from unperturbed.evaluation.comparison import compare

    groups = [[part for part in text.split(",") if part] for text in given.runs]
    folders = [folder for group in groups for folder in group]
    if len(groups) < 2 or len(set(folders)) < len(folders):
        raise InputError(f"A comparison is between different runs: give two run folders or more, not {given.runs}.")
    stored = {folder: _evaluations(Path(folder)) for folder in folders}
    chosen = _chosen(stored, given.suite, given.threat)
    named = {",".join(group): [chosen[folder] for folder in group] for group in groups}
    found = compare(named)
    for text in found.warnings:
        say(text, "warning")
    views: list[Any] = [f"{found.threat}, suite {found.suite}"]
    views += [f"{name}, robust accuracy{doubted(doubts)}" for name, doubts in found.doubts.items()]
    for pair in found.pairs:
        views += [_headline(pair), _classes(pair)]
        views += [
            _differing(name, ids) for name, ids in zip(pair.names, (pair.only_first, pair.only_second), strict=True)
        ]
    return Result(found.json(), views)


def _evaluations(run: Path) -> dict[Path, Outcome]:
    from unperturbed.evaluation.stored import stored_evaluations

    if not run.is_dir():
        raise InputError(f"{run} is no run folder: give a folder that `unperturbed train` has made.")
    if not (outcomes := stored_evaluations(run)):
        raise InputError(f"{run} holds no finished evaluation: unperturbed evaluate {run}")
    return outcomes


def _chosen(stored: Mapping[str, Mapping[Path, Outcome]], suite: str | None, threat: str | None) -> dict[str, Outcome]:
    """Return one evaluation of each run, all of one kind: with the most attacks, then of the most examples.

    Raises:
        InputError: where the runs have no evaluation of one kind in common.
    """
    from unperturbed.evaluation.stored import with_examples

    kinds = {
        folder: {(outcome.suite, outcome.threat): (path, outcome) for path, outcome in sorted(outcomes.items(), key=_n)}
        for folder, outcomes in stored.items()
    }
    common = set.intersection(*(set(kind) for kind in kinds.values()))
    common = {kind for kind in common if suite in (None, kind[0]) and threat in (None, kind[1])}
    if not common:
        asked = " of ".join(filter(None, [f"by {suite}" if suite else "", threat or ""]))
        lists = "; ".join(
            f"{run} has {', '.join(' under '.join(kind) for kind in known)}" for run, known in kinds.items()
        )
        raise InputError(f"The runs have no evaluation {asked}in common ({lists}): evaluate all of them alike.")
    first = next(iter(kinds.values()))
    best = max(sorted(common), key=lambda kind: (sum(a.forwards for a in first[kind][1].attacks), first[kind][1].n))
    return {folder: with_examples(*known[best]) for folder, known in kinds.items()}


def _n(stored: tuple[Path, Outcome]) -> int:
    return stored[1].n


def _headline(pair: "Pair") -> Any:
    first, second = pair.names
    over = "other examples" if pair.seeds == 1 else f"other examples and seeds ({pair.seeds} each)"
    rows = [
        (name, _points(of.value), f"[{_points(of.low)}, {_points(of.high)}]", *_counts(of))
        for name, of in (("clean accuracy", pair.clean), ("robust accuracy", pair.robust))
    ]
    columns = (f"{second} less {first}, n={pair.n}", "points", f"95%, {over}", "gained", "lost", "McNemar's p")
    return table("", columns, rows)


def _counts(of: "Difference") -> tuple[str, str, str]:
    return (str(of.gained), str(of.lost), f"{of.p:.2g}") if of.p is not None else ("", "", "")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _classes(pair: "Pair") -> Any:
    rows = [
        (str(entry.label), str(entry.n), *(f"{100 * share:.1f}%" for share in (*entry.clean, *entry.robust)))
        for entry in pair.classes
    ]
    first, second = pair.names
    columns = ("class", "n", f"clean {first}", f"clean {second}", f"robust {first}", f"robust {second}")
    return table("", columns, rows)


def _differing(name: str, ids: Sequence[int]) -> str:
    listed = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
    return f"Robust on {name} alone: {len(ids)} examples{f' ({listed})' if ids else ''}."
