"""Attack each of several trained models, and measure all the others on the points that were found."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.evaluate import SUITE_HELP, repeatable, suite_of
from unperturbed.cli.options import Parsed, add_examples_options, new_parser
from unperturbed.errors import InputError
from unperturbed.findings import Transfer, doubted
from unperturbed.runs import BEST
from unperturbed.runs.weights import check_weights

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("transfer", str(__doc__))
    made.add_argument("runs", type=str, nargs="*", help="two run folders or more, of the same data")
    made.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    add_examples_options(made, "test")
    made.add_argument("--threat", type=str | None, help="norm and radius for all of them (default: the runs' own)")
    made.add_argument("--out", type=str | None, metavar="FOLDER", help="where the matrix is kept, so that it can go on")
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

    from unperturbed.cli.subject import (
        check_same_network,
        examples_of,
        load_into,
        make_model,
        model_of,
        stored_bounds,
        stored_run,
        taken,
    )
    from unperturbed.data.sources import load_data
    from unperturbed.evaluation.transfer import transfer
    from unperturbed.networks.dtype import cast
    from unperturbed.networks.inputs import prepared
    from unperturbed.threat import Threat
    from unperturbed.training.prepare import find_device

    suite = suite_of(given.suite, given.trust)
    runs = [str(Path(run)) for run in given.runs]
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise InputError(f"Transfer is between different models: give two run folders or more, not {runs}.")
    stored = {run: stored_run(run) for run in runs}
    for key in ("data", "classes", "bounds", *(() if given.threat else ("threat",))):
        _check_same(key, {run: getattr(record, key) for run, record in stored.items()})
    device = find_device(given.device)

    first = stored[runs[0]]
    if first.data is None:
        raise InputError(f"{runs[0]} does not say where its data are: train from what load_data(...) returns.")
    data = load_data(first.data, given.trust.of_file(Path(runs[0]), first.plain()))
    split, chosen = examples_of(data, given.examples, given.examples_seed)
    threat = Threat.parse(given.threat or first.threat, stored_bounds(first.bounds))
    models = {}
    for run in runs:
        if not (Path(run) / BEST).exists():
            raise InputError(f"{Path(run) / BEST} is not there: the run has not finished an epoch. Go on with it.")
        for text in check_weights(Path(run)):
            say(f"{run}: {text}", "warning")
        tree = model_of(stored[run], run, named=False)
        model, _ = make_model(tree, data, trust=given.trust.of_file(Path(run), stored[run].plain()))
        check_same_network(model, tree, stored[run], run)
        load_into(model, str(Path(run) / BEST), tree)
        models[run] = cast(prepared(model, **taken(None, stored[run])), torch.float32, device)
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
