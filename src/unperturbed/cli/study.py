"""Test the claims of papers: a grid of runs for each, decided by a fixed rule, with a table and a figure."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, say, table
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.errors import InputError, RunError

if TYPE_CHECKING:
    from unperturbed.studies.design import Scale, Study
    from unperturbed.studies.study import Place

POSITIONAL = "names..."
ALL = "all"
OUT = "runs/studies"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("study", str(__doc__))
    command_parser.add_argument("names", type=str, nargs="*", help="studies, such as LLR-1, or all (none: list them)")
    command_parser.add_argument(
        "--scale", type=str, default="small", help="small (digits, minutes), medium (MNIST and CIFAR-10, hours) or full"
    )
    command_parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, of one thread each")
    command_parser.add_argument(
        "--data", type=str | None, metavar="FOLDER", help="holds folders mnist and cifar10 (default: data sets by name)"
    )
    command_parser.add_argument(
        "--out", type=str, default=OUT, metavar="FOLDER", help="of networks, measured values and pages"
    )
    return command_parser


def run(parsed: Parsed) -> Result:
    """List the studies, or run those named; rerunning resumes."""
    from unperturbed.studies.by_name import find_study, names
    from unperturbed.studies.design import SCALES
    from unperturbed.studies.study import Place

    if parsed.scale not in SCALES:
        raise InputError(f"--scale is {parsed.scale!r}: give {', '.join(SCALES[:-1])} or {SCALES[-1]}.")
    if parsed.jobs < 1:
        raise InputError(f"--jobs is {parsed.jobs}: give 1 or more.")
    place = Place(Path(parsed.out), None if parsed.data is None else Path(parsed.data))
    scale: Scale = parsed.scale
    chosen = names() if parsed.names == [ALL] else tuple(parsed.names)
    studies = [find_study(name) for name in chosen or names()]
    return _run(studies, scale, place, parsed.jobs) if chosen else _listed(studies, place)


def _run(studies: "list[Study]", scale: "Scale", place: "Place", jobs: int) -> Result:
    """Run the studies one after the other, and return their sentences; exit code 1 if one of them failed."""
    from unperturbed.studies.page import json_of, write_pages
    from unperturbed.studies.study import run_study

    value, views, failed = [], list[Any](), False
    for study in studies:
        try:
            result = run_study(study, scale, place, jobs, lambda n, total, text: say(f"{n:g} of {total:g} runs {text}"))
        except RunError as error:
            say(f"{study.name} stopped: {error}", "error")
            failed = True
            continue
        page = write_pages(result, place.out)
        value.append({**json_of(result), "page": str(page)})
        views += [f"{study.name}: {study.claim}", *(f"  {verdict}" for _, verdict in result.verdicts), f"  {page}"]
    return Result(value, views, code=int(failed))


def _listed(studies: "list[Study]", place: "Place") -> Result:
    """Return all studies with the state of each scale, and the commands of the medium scale."""
    rows, value = [], []
    for study in studies:
        states = {scale: _state(study, scale, place) for scale in study.settings}
        rows.append((study.name, study.claim, *states.values()))
        value.append({"study": study.name, "claim": study.claim, "source": study.source, "state": states,
                      "command": _command(study, place)})  # fmt: skip
    columns = ("study", "claim", "small", "medium", "full")
    return Result(value, [table("", columns, rows), *(entry["command"] for entry in value)])


def _state(study: "Study", scale: "Scale", place: "Place") -> str:
    """Return the verdicts of a finished study, or the number of its finished runs."""
    from unperturbed.studies.page import stored_verdicts
    from unperturbed.studies.study import progress_of

    decisions = [verdict["decision"] for verdict in stored_verdicts(place.out, study.name, scale)]
    if decisions:
        return ", ".join(f"{decisions.count(kind)} {kind}" for kind in dict.fromkeys(decisions))
    finished, total = progress_of(study, scale, place)
    return f"{finished} of {total} runs" if finished else f"{total} runs"


def _command(study: "Study", place: "Place") -> str:
    """Return the command that runs the study at medium scale."""
    words = ["unperturbed", "study", study.name, "--scale", "medium"]
    words += [] if place.data is None else ["--data", str(place.data)]
    words += [] if str(place.out) == OUT else ["--out", str(place.out)]
    return shlex.join(words)
