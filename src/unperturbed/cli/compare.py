"""Compare evaluated runs example by example: paired differences with intervals, and their examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, say, table
from unperturbed.cli.options import Parsed, add_format, new_parser
from unperturbed.findings import doubted

if TYPE_CHECKING:
    from unperturbed.evaluation.comparison import Difference, Pair

POSITIONAL = "runs..."
SHOWN = 10
"""The largest number of printed ids; `--json` has all of them."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("compare", str(__doc__))
    command_parser.add_argument(
        "runs", type=str, nargs="*", help="two evaluated run folders or more; A0,A1,A2: one method with three seeds"
    )
    command_parser.add_argument(
        "--suite", type=str | None, help="of the evaluations (default: the strongest that all runs have)"
    )
    command_parser.add_argument("--threat", type=str | None, help="of the evaluations, norm and radius")
    add_format(command_parser)
    return command_parser


def run(parsed: Parsed) -> Result:
    """Read the evaluations, and return the differences between each two runs."""
    from unperturbed.evaluation.run_comparison import compare_runs
    from unperturbed.results.tables import difference_rows

    runs = [[folder for folder in text.split(",") if folder] for text in parsed.runs]
    comparison = compare_runs(runs, parsed.suite, parsed.threat)
    for text in comparison.warnings:
        say(text, "warning")
    if parsed.format is not None:
        return Result(comparison.json(), [difference_rows(comparison).text(parsed.format).rstrip("\n")])
    views: list[Any] = [f"{comparison.threat}, suite {comparison.suite}"]
    views += [f"{name}, robust accuracy{doubted(doubts)}" for name, doubts in comparison.doubts.items()]
    for pair in comparison.pairs:
        views += [_headline(pair), _significance(pair.robust), _classes(pair)]
        views += [
            _differing(name, ids) for name, ids in zip(pair.names, (pair.only_first, pair.only_second), strict=True)
        ]
    return Result(comparison.json(), views)


def _headline(pair: "Pair") -> Any:
    first, second = pair.names
    over = "other examples" if pair.seeds == 1 else f"other examples and seeds ({pair.seeds} each)"
    rows = [
        (name, _points(of.value), f"[{_points(of.low)}, {_points(of.high)}]", *_counts(of))
        for name, of in (("clean accuracy", pair.clean), ("robust accuracy", pair.robust))
    ]
    columns = (f"{second} less {first}, n={pair.n}", "points", f"95%, {over}", "gained", "lost", "McNemar's p")
    return table("", columns, rows)


def _significance(robust: "Difference") -> str:
    verb, verdict = ("excludes", "is significant") if robust.significant else ("includes", "is not significant")
    return f"The interval of robust accuracy {verb} 0: the difference {verdict}."


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
