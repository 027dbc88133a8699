"""Attack each of several trained models, and measure all others on its adversarial points."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.engine import add_engine_options, engine_of
from unperturbed.cli.evaluate import SUITE_HELP
from unperturbed.cli.options import Parsed, add_examples_options, new_parser
from unperturbed.errors import InputError
from unperturbed.findings import Transfer, doubted

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("transfer", str(__doc__))
    command_parser.add_argument("runs", type=str, nargs="*", help="two run folders or more, of the same data")
    command_parser.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    add_examples_options(command_parser, "test")
    command_parser.add_argument(
        "--threat", type=str | None, help="norm and radius for all runs (default: those of the runs)"
    )
    command_parser.add_argument(
        "--out", type=str | None, metavar="FOLDER", help="folder of the matrix; rerunning resumes"
    )
    command_parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")
    command_parser.add_argument("--seed", type=int, default=0, help="of the attacks' random starts")
    command_parser.add_argument("--batch-size", type=Literal["auto"] | int, default="auto", help="examples in a batch")
    add_engine_options(command_parser)
    command_parser.add_argument("--overwrite", action="store_true", help="replace another matrix in the same folder")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Return the matrix: one row per attacked model, one column per measured model."""
    import torch

    from unperturbed.cli.setup import examples_of, warn_of_changes
    from unperturbed.evaluation.transfer import transfer
    from unperturbed.networks.device import find_device
    from unperturbed.networks.dtype import cast
    from unperturbed.suites.by_name import find_suite
    from unperturbed.threat import Threat
    from unperturbed.training.run import Run

    suite = find_suite(parsed.suite, parsed.trust)
    folders = [str(Path(run)) for run in parsed.runs]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise InputError(f"Transfer is between different models: give two run folders or more, not {folders}.")
    runs = {folder: Run.open(folder, parsed.trust) for folder in folders}
    for key in ("data", "classes", "bounds", *(() if parsed.threat else ("threat",))):
        _check_same(key, {folder: getattr(run.record, key) for folder, run in runs.items()})
    device, engine = find_device(parsed.device), engine_of(parsed)

    first = runs[folders[0]]
    for folder, run in runs.items():
        warn_of_changes(first.data, run.record, folder)
    split, chosen = examples_of(first.data, parsed.examples, parsed.examples_seed)
    threat = Threat.parse(parsed.threat, first.bounds) if parsed.threat else first.threat
    models = {folder: cast(run.model, torch.float32, device) for folder, run in runs.items()}
    with progress() as report, nullcontext() if parsed.out is None else repeatable():
        result = transfer(
            models,
            split,
            threat,
            suite,
            out=parsed.out,
            overwrite=parsed.overwrite,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            engine=engine,
            progress=report,
        )
    for text in result.warnings:
        say(text, "warning")
    value = result.json() | ({} if chosen is None else {"selection": str(chosen)})
    return Result(
        value,
        [
            f"{result.threat}, n={result.n} ({chosen or 'all'}), suite {result.suite}: {result.note}",
            _matrix(result),
        ],
    )


def _check_same(key: str, values: Mapping[str, Any]) -> None:
    """Raise InputError for runs that differ in settings that must be equal in a matrix."""
    (first, expected), *others = values.items()
    for run, value in others:
        if value != expected:
            remedy = " Give --threat to attack all of them under the same threat." if key == "threat" else ""
            raise InputError(f"The runs differ in their {key}: {expected!r} in {first}, {value!r} in {run}.{remedy}")


def _matrix(matrix: Transfer) -> Any:
    def cells(row: Sequence[Any]) -> list[str]:
        return [f"{each.value:.1%} [{each.low:.1%}, {each.high:.1%}]" for each in row]

    rows = [["no attack", *cells(matrix.clean_accuracy)]]
    rows += [
        [f"{name}{doubted(matrix.doubts.get(name, ()))}", *cells(row)]
        for name, row in zip(matrix.names, matrix.accuracy, strict=True)
    ]
    names = [f"{name}, not to be believed" if name in matrix.doubts else name for name in matrix.names]
    return table("", ("points found on", *names), [*rows, ["worst of all", *cells(matrix.worst)]])
