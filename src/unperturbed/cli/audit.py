"""Tell whether a robust accuracy is real: the verdict, its causes, and the accuracy after the remedies."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from rich.text import Text

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.engine import add_engine_options, engine_of
from unperturbed.cli.options import Parsed, add_data_options, new_parser
from unperturbed.errors import InputError
from unperturbed.runs import CONFIG, write_json
from unperturbed.runs.verify import read_sealed, write_sealed

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.examinations.verdict import Audit
    from unperturbed.findings import Outcome

POSITIONAL = "run"
FAIL_HELP = "end with exit code 1 at this verdict or a worse one, for continuous integration"
BUDGET_HELP = "approximate duration of the audit on a free machine: 90s, 5m, 1h"
SUITE_HELP = "the evaluation in question, as in evaluate; one in the run folder is reused"
FROM_HELP = "run folders with commas: their adversarial examples are tried on this network"
RANKS = {"no sign of obfuscation": 0, "undecided": 1, "suspicious": 1, "obfuscated": 2}
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("audit", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data"
    )
    add_data_options(command_parser)
    command_parser.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    command_parser.add_argument("--budget", type=str, default="5m", metavar="TIME", help=BUDGET_HELP)
    command_parser.add_argument(
        "--examples", type=int | None, metavar="N", help="N test examples, as for evaluate (default: by the budget)"
    )
    command_parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    command_parser.add_argument("--batch-size", type=Literal["auto"] | int, default="auto", help="examples in a batch")
    command_parser.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    add_engine_options(command_parser, "the evaluations")
    command_parser.add_argument("--transfer-from", type=str | None, metavar="RUN,...", help=FROM_HELP)
    command_parser.add_argument("--fail-on", type=Literal["suspicious", "obfuscated"] | None, help=FAIL_HELP)
    return command_parser


def run(parsed: Parsed) -> Result:
    """Audit, write audit.json and audit.sarif, and return the verdict."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.examinations.audit import audit
    from unperturbed.examinations.sarif import sarif
    from unperturbed.suites.by_name import find_suite

    suite, budget = find_suite(parsed.suite, parsed.trust), seconds_of(parsed.budget)
    if parsed.examples is not None and parsed.examples < 1:
        raise InputError(f"--examples is {parsed.examples}, but must be at least 1.")
    examples, engine = parsed.examples, engine_of(parsed)
    parsed.plain.examples, parsed.plain.examples_seed = None, None
    subject = find_setup(parsed)
    subject.keep()
    folder = _free_of_longer(_folder(subject, parsed), subject, parsed.budget, examples)
    with progress() as report, repeatable():
        result = audit(
            subject.model,
            subject.split,
            subject.threat,
            suite,
            budget=budget,
            examples=examples,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            out=folder,
            stored=_stored(subject),
            peers=_peers(parsed),
            engine=engine,
            announce=lambda plan: say(f"{plan} (budget {parsed.budget})."),
            progress=report,
        )
    value = {"run": str(subject.home), "budget": budget} | result.json()
    write_sealed(folder.with_suffix(".json"), value)
    location = CONFIG if (subject.home / CONFIG).is_file() else folder.with_suffix(".json").name
    write_json(folder.with_suffix(".sarif"), sarif(result, location))
    picture = picture_of(result, folder.with_suffix(".svg"))
    for text in result.warnings:
        say(text, "warning")
    failed = parsed.fail_on is not None and RANKS[result.verdict] >= RANKS[parsed.fail_on]
    written = f"Written: {folder.with_suffix('.json')}, {folder.with_suffix('.sarif')}{picture and f', {picture}'}"
    return Result(value, [*_views(result), written], int(failed))


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 5m or 1h.

    Raises `InputError` for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds < 1e7:
        raise InputError(f"--budget is {text!r}: write a positive time, such as 90s, 5m or 1h.")
    return seconds


def _folder(subject: "Setup", parsed: Parsed) -> Path:
    """Return the folder of the audit of these weights, data and threat: `audit` for the run's threat."""
    from unperturbed.cli.setup import slug

    other_threat = [str(subject.threat)] if str(subject.threat) != str(subject.usual) else []
    seed = [f"seed {parsed.seed}"] if parsed.seed else []
    return subject.home / slug("audit", *subject.parts, *other_threat, *seed)


def _free_of_longer(folder: Path, subject: "Setup", budget: str, examples: int | None) -> Path:
    """Return the folder of the audit, or one named by its budget if that holds a longer audit of the same weights."""
    from unperturbed.cli.setup import slug
    from unperturbed.evaluation.hashes import weights_hash

    file, seconds = folder.with_suffix(".json"), seconds_of(budget)
    stored = read_sealed(file)
    try:
        longer = stored["budget"] > seconds
        if stored["budget"] == seconds and examples is not None:
            longer = stored["headline"]["n"] > examples
        longer = longer and stored["environment"]["weights"] == weights_hash(subject.model)
    except (LookupError, TypeError):  # none, or one without its budget
        longer = False
    if not longer:
        return folder
    number = [] if examples is None else [f"examples {examples}"]
    shorter = folder.with_name(slug(folder.name, f"budget {budget}", *number))
    say(f"{file} holds a longer audit and is kept; this one is written to {shorter.with_suffix('.json')}.")
    return shorter


def _stored(subject: "Setup") -> Sequence["Outcome"]:
    """Return the finished evaluations of the same weights and examples, with their tables."""
    import torch

    from unperturbed.data.split import select
    from unperturbed.evaluation.hashes import data_hash, weights_hash
    from unperturbed.evaluation.stored import stored_evaluations, with_examples

    evaluations, weights, names = [], weights_hash(subject.model), subject.split.names()
    try:
        for summary, outcome in stored_evaluations(subject.home).items():
            if outcome.threat != str(subject.threat) or outcome.environment.get("weights") != weights:
                continue
            whole = with_examples(summary, outcome)
            rows = torch.isin(names, torch.tensor(whole.examples["id"])).nonzero()[:, 0]
            if outcome.environment.get("data") == data_hash(select(subject.split, rows)):
                evaluations.append(whole)
    except InputError as error:
        say(f"{error} It is not used here.", "warning")
    return evaluations


def _peers(parsed: Parsed) -> dict[str, Any]:
    """Return the networks of other runs by folder."""
    from unperturbed.training.run import Run

    folders = [name.strip() for name in parsed.transfer_from.split(",")] if parsed.transfer_from else []
    return {folder: Run.open(folder, parsed.trust).model for folder in folders}


def picture_of(found: "Audit", place: Path) -> str:
    """Draw the loss surface that a check measured, and return where; "" where there is none, and no file."""
    from unperturbed.reports.charts.style import save_chart
    from unperturbed.reports.charts.surfaces import Panel, surfaces_chart

    surface = next((check.surface for check in found.checks if check.surface is not None), None)
    if surface is None:
        place.unlink(missing_ok=True)  # that of an earlier audit
        return ""
    panel = Panel("loss around an example", surface.caption, surface.along, surface.values)
    save_chart(surfaces_chart([panel], f"Audit: {found.verdict}"), place)
    return str(place)


def _views(result: "Audit") -> list[Any]:
    from unperturbed.examinations.causes import BY_NAME
    from unperturbed.examinations.verdict import MEANINGS

    styles = {"no sign of obfuscation": "bold green", "obfuscated": "bold red"}
    rows: list[tuple[str, str | Text]] = [
        ("verdict", Text(result.verdict, style=styles.get(result.verdict, "bold yellow"))),
        ("robust accuracy", Text(f"at most {result.headline}", style="bold")),
        (f"by the suite {result.suite}", str(result.claimed)),
        ("clean accuracy", str(result.clean)),
        ("gradients taken from", "; ".join(result.remedies)),
        ("processor time", _time(result)),
    ]
    views: list[Any] = [table("", ("", result.threat), rows), MEANINGS[result.verdict]]
    for name in result.causes:
        check = result.evidence(name)
        measured = f"\n  Measured: {check.measured}." if check is not None else ""
        views.append(f"{name}: {BY_NAME[name].meaning}{measured}\n  Remedy: {BY_NAME[name].remedy}")
    order = {"fail": 0, "not run": 1, "pass": 2}
    checks = sorted(result.checks, key=lambda check: order[check.verdict])
    marks: dict[str, str | Text] = {"pass": "pass", "fail": Text("fail", style="bold red"), "not run": "not run"}
    found = [(c.question, marks[c.verdict], f"{c.seconds:.1f} s", c.measured) for c in checks]
    views.append(table("", ("check", "", "cost", "measured"), found))
    return views


def _time(result: "Audit") -> str:
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.costs.items())
    return f"{result.seconds:.0f} s" + (f" ({parts})" if parts else "")
