"""Tell whether a robust accuracy is real: the verdict, its causes, and the accuracy after the remedies."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from rich.text import Text

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.options import Parsed, add_data_options, new_parser
from unperturbed.errors import InputError
from unperturbed.runs import CONFIG, write_json

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.examinations.verdict import Audit
    from unperturbed.findings import Outcome

POSITIONAL = "run"
FAIL_HELP = "end with exit code 1 at this verdict or a worse one, for continuous integration"
BUDGET_HELP = "time that the audit may take, about: 90s, 5m, 1h"
SUITE_HELP = "the evaluation in question, as in evaluate; one that the run folder holds is not repeated"
FROM_HELP = "run folders with commas: their adversarial examples are tried on this network"
RANKS = {"no sign of obfuscation": 0, "undecided": 1, "suspicious": 1, "obfuscated": 2}
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("audit", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    made.add_argument("--budget", type=str, default="5m", metavar="TIME", help=BUDGET_HELP)
    made.add_argument("--examples", type=int | None, metavar="N", help="first N test examples (default: by the budget)")
    made.add_argument("--seed", type=int, default=0, help="of every random number")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that the network sees at a time"
    )
    made.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    made.add_argument("--transfer-from", type=str | None, metavar="RUN,...", help=FROM_HELP)
    made.add_argument("--fail-on", type=Literal["suspicious", "obfuscated"] | None, help=FAIL_HELP)
    return made


def run(given: Parsed) -> Result:
    """Audit, write audit.json and audit.sarif, and return the verdict."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.examinations.audit import audit
    from unperturbed.examinations.sarif import sarif
    from unperturbed.suites.by_name import find_suite

    suite, budget = find_suite(given.suite, given.trust), seconds_of(given.budget)
    if given.examples is not None and given.examples < 1:
        raise InputError(f"--examples is {given.examples}, but must be at least 1.")
    examples = given.examples
    given.plain.examples, given.plain.examples_seed = None, None
    subject = find_setup(given)
    subject.keep()
    folder = _folder(subject, given)
    with progress() as report, repeatable():
        found = audit(
            subject.model,
            subject.split,
            subject.threat,
            suite,
            budget=budget,
            examples=examples,
            seed=given.seed,
            batch_size=given.batch_size,
            out=folder,
            stored=_stored(subject),
            peers=_peers(given),
            announce=lambda plan: say(f"{plan} (budget {given.budget})."),
            progress=report,
        )
    value = {"run": str(subject.home)} | found.json()
    write_json(folder.with_suffix(".json"), value)
    place = CONFIG if (subject.home / CONFIG).is_file() else folder.with_suffix(".json").name
    write_json(folder.with_suffix(".sarif"), sarif(found, place))
    picture = picture_of(found, folder.with_suffix(".svg"))
    for text in found.warnings:
        say(text, "warning")
    failed = given.fail_on is not None and RANKS[found.verdict] >= RANKS[given.fail_on]
    written = f"Written: {folder.with_suffix('.json')}, {folder.with_suffix('.sarif')}{picture and f', {picture}'}"
    return Result(value, [*_views(found), written], int(failed))


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 5m or 1h.

    Raises `InputError` for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds < 1e7:
        raise InputError(f"--budget is {text!r}: write a positive time, such as 90s, 5m or 1h.")
    return seconds


def _folder(subject: "Setup", given: Parsed) -> Path:
    """Return where the audit of these weights, data and threat is kept: `audit` for the run's own threat."""
    from unperturbed.cli.setup import slug

    other = [str(subject.threat)] if str(subject.threat) != str(subject.usual) else []
    seed = [f"seed {given.seed}"] if given.seed else []
    return subject.home / slug("audit", *subject.parts, *other, *seed)


def _stored(subject: "Setup") -> Sequence["Outcome"]:
    """Return the finished evaluations of the same weights and examples, with their tables."""
    import torch

    from unperturbed.data.split import select
    from unperturbed.evaluation.hashes import data_hash, weights_hash
    from unperturbed.evaluation.stored import stored_evaluations, with_examples

    found, weights, names = [], weights_hash(subject.model), subject.split.names()
    try:
        for place, outcome in stored_evaluations(subject.home).items():
            if outcome.threat != str(subject.threat) or outcome.environment.get("weights") != weights:
                continue
            whole = with_examples(place, outcome)
            rows = torch.isin(names, torch.tensor(whole.examples["id"])).nonzero()[:, 0]
            if outcome.environment.get("data") == data_hash(select(subject.split, rows)):
                found.append(whole)
    except InputError as error:
        say(f"{error} It is not used here.", "warning")
    return found


def _peers(given: Parsed) -> dict[str, Any]:
    """Return the networks of other runs by folder."""
    from unperturbed.training.run import Run

    folders = [name.strip() for name in given.transfer_from.split(",")] if given.transfer_from else []
    return {folder: Run.open(folder, given.trust).model for folder in folders}


def picture_of(found: "Audit", place: Path) -> str:
    """Draw the loss surface that a check measured, and return where; "" where there is none."""
    from unperturbed.reports.charts.style import save_chart
    from unperturbed.reports.charts.surfaces import Panel, surfaces_chart

    surface = next((check.surface for check in found.checks if check.surface is not None), None)
    if surface is None:
        return ""
    panel = Panel("loss around an example", surface.caption, surface.along, surface.values)
    save_chart(surfaces_chart([panel], f"Audit: {found.verdict}"), place)
    return str(place)


def _views(found: "Audit") -> list[Any]:
    from unperturbed.examinations.causes import BY_NAME
    from unperturbed.examinations.verdict import MEANINGS

    styles = {"no sign of obfuscation": "bold green", "obfuscated": "bold red"}
    rows: list[tuple[str, str | Text]] = [
        ("verdict", Text(found.verdict, style=styles.get(found.verdict, "bold yellow"))),
        ("robust accuracy", Text(f"at most {found.headline}", style="bold")),
        (f"by the suite {found.suite}", str(found.claimed)),
        ("clean accuracy", str(found.clean)),
        ("attacks followed", "; ".join(found.remedies)),
        ("time", f"{found.seconds:.0f} s"),
    ]
    views: list[Any] = [table("", ("", found.threat), rows), MEANINGS[found.verdict]]
    for name in found.causes:
        check = found.evidence(name)
        measured = f"\n  Measured: {check.measured}." if check is not None else ""
        views.append(f"{name}: {BY_NAME[name].meaning}{measured}\n  Remedy: {BY_NAME[name].remedy}")
    marks: dict[str, str | Text] = {"pass": "pass", "fail": Text("fail", style="bold red"), "not run": "not run"}
    views.append(
        table("", ("check", "", "measured"), [(c.question, marks[c.verdict], c.measured) for c in found.checks])
    )
    return views
