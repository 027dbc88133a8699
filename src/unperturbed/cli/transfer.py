"""Attack each of several trained models, and measure all the others on the points that were found."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.evaluate import SUITE_HELP
from unperturbed.cli.options import Parsed, add_examples_options, new_parser
from unperturbed.errors import InputError
from unperturbed.findings import Transfer, doubted

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("transfer", str(__doc__))
    made.add_argument("runs", type=str, nargs="*", help="two run folders or more, of the same data")
    made.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    add_examples_options(made, "test")
    made.add_argument("--threat", type=str | None, help="norm and radius for all of them (default: the runs' own)")
    made.add_argument("--out", type=str | None, metavar="FOLDER", help="where the matrix is stored; rerunning resumes")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")
    made.add_argument("--seed", type=int, default=0, help="of the attacks' random starts")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that a network sees at a time"
    )
    made.add_argument("--overwrite", action="store_true", help="replace another matrix in the same folder")
    return made


def run(given: Parsed) -> Result:
    """Return the matrix: a row for the points found on each model, a column for each model measured on them."""
    import torch

    from unperturbed.cli.setup import examples_of
    from unperturbed.evaluation.transfer import transfer
    from unperturbed.networks.device import find_device
    from unperturbed.networks.dtype import cast
    from unperturbed.suites.by_name import find_suite
    from unperturbed.threat import Threat
    from unperturbed.training.run import Run

    suite = find_suite(given.suite, given.trust)
    folders = [str(Path(run)) for run in given.runs]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise InputError(f"Transfer is between different models: give two run folders or more, not {folders}.")
    runs = {folder: Run.open(folder, given.trust) for folder in folders}
    for key in ("data", "classes", "bounds", *(() if given.threat else ("threat",))):
        _check_same(key, {folder: getattr(run.record, key) for folder, run in runs.items()})
    device = find_device(given.device)

    first = runs[folders[0]]
    split, chosen = examples_of(first.data, given.examples, given.examples_seed)
    threat = Threat.parse(given.threat, first.bounds) if given.threat else first.threat
    models = {folder: cast(run.model, torch.float32, device) for folder, run in runs.items()}
    with progress() as report, nullcontext() if given.out is None else repeatable():
        found = transfer(
            models,
            split,
            threat,
            suite,
            out=given.out,
            overwrite=given.overwrite,
            seed=given.seed,
            batch_size=given.batch_size,
            progress=report,
        )
    for text in found.warnings:
        say(text, "warning")
    value = found.json() | ({} if chosen is None else {"selection": str(chosen)})
    return Result(
        value, [f"{found.threat}, n={found.n} ({chosen or 'all'}), suite {found.suite}: {found.note}", _matrix(found)]
    )


def _check_same(key: str, values: Mapping[str, Any]) -> None:
    """Refuse runs that differ in what a matrix needs to be the same."""
    (first, expected), *others = values.items()
    for run, value in others:
        if value != expected:
            remedy = " Give --threat to attack all of them alike." if key == "threat" else ""
            raise InputError(f"The runs differ in their {key}: {expected!r} in {first}, {value!r} in {run}.{remedy}")


def _matrix(found: Transfer) -> Any:
    def cells(row: Sequence[Any]) -> list[str]:
        return [f"{each.value:.1%} [{each.low:.1%}, {each.high:.1%}]" for each in row]

    rows = [["no attack", *cells(found.clean_accuracy)]]
    rows += [
        [f"{name}{doubted(found.doubts.get(name, ()))}", *cells(row)]
        for name, row in zip(found.names, found.accuracy, strict=True)
    ]
    names = [f"{name}, not to be believed" if name in found.doubts else name for name in found.names]
    return table("", ("points found on", *names), [*rows, ["worst of all", *cells(found.worst)]])
