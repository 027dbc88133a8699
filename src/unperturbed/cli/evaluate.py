"""Measure how robust a trained model is: a verdict per example, and a headline with its interval."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.names import hint
from unperturbed.cli.options import Parsed, add_data_options, new_parser
from unperturbed.cli.trees import Tree
from unperturbed.errors import InputError, RunError
from unperturbed.runs import BEST, CONFIG, read_yaml, write_json, write_yaml

if TYPE_CHECKING:
    from unperturbed.data.split import Data, Split
    from unperturbed.findings import Outcome
    from unperturbed.threat import Threat

POSITIONAL = "run"
NEEDED = ("data", "model", "weights", "threat", "bounds")
"""What an evaluation needs to know, and a run folder's config.yaml says."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("evaluate", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--suite", type=str, default="pgd", help="which attacks: pgd (50 steps, 20 restarts)")
    made.add_argument("--examples", type=int | None, metavar="N", help="only the first N test examples")
    made.add_argument("--examples-seed", type=int | None, metavar="S", help="N random ones instead")
    made.add_argument("--eps", type=str | None, metavar="EPS,...", help="these radii instead: 4/255,8/255")
    made.add_argument("--seed", type=int, default=0, help="of the attacks' random starts")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that the network sees at a time"
    )
    made.add_argument(
        "--precision", type=Literal["auto", "32", "64"], default="auto", help="of the arithmetic (auto: 32)"
    )
    return made


def run(given: Parsed) -> Result:
    """Evaluate, and return the headline, the counts and what each attack did."""
    from unperturbed.cli.subject import default_threat, keep_place, make_model, read_bounds, read_device, slug
    from unperturbed.data.sources import load_data
    from unperturbed.evaluation.accuracy import SUITES, evaluate
    from unperturbed.models.load import load_weights
    from unperturbed.threat import Threat

    if given.suite not in SUITES:
        raise InputError(f"There is no suite {given.suite!r}. {hint(given.suite, SUITES)}")
    device = read_device(given.device)
    stored = _stored(given.run)
    tree, weights = _model_and_weights(given, stored)
    place = given.data or stored.get("data")
    if place is None:
        raise InputError("--data is missing: give a name (unperturbed datasets lists them), a folder, or a file.")

    data = load_data(place)
    bounds = read_bounds(given.bounds or stored.get("bounds"), data.bounds)
    usual = Threat.parse(stored.get("threat") or given.threat or default_threat(data), bounds)
    asked = Threat.parse(given.threat, bounds) if given.threat else usual
    threats = _radii(asked, given.eps)
    split = _examples(data, given.examples, given.examples_seed)
    model, description = make_model(tree, data)
    if weights is not None:
        load_weights(model, weights)
    model.to(device, torch.float64 if given.precision == "64" else torch.float32)

    home = Path(given.out or given.run or Path("runs") / slug(data.name, description["class_path"]))
    if home != Path(given.run or ""):
        kept = {"data": keep_place(place), "model": description, "weights": weights and keep_place(str(weights))}
        _claim(home, kept | {"threat": str(asked.norm) , "bounds": given.bounds})
    outcomes = []
    with progress() as report, repeatable(given):
        for threat in threats:
            folder = home / "evaluation" / ("" if str(threat) == str(usual) else slug(str(threat)))
            outcomes.append(
                evaluate(
                    model,
                    split,
                    threat,
                    given.suite,
                    out=folder,
                    seed=given.seed,
                    batch_size=given.batch_size,
                    progress=report,
                )
            )
    return _result(home, outcomes, asked)
