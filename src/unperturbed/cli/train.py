"""Train a classifier that holds up under a threat, and keep it in a run folder."""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, progress, table
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, add_fields, new_parser
from unperturbed.errors import InputError, NotResumableError, RunError
from unperturbed.runs import CHECKPOINT
from unperturbed.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from unperturbed.data.selection import Selection
    from unperturbed.data.split import Data
    from unperturbed.methods.base import Method
    from unperturbed.threat import Threat

POSITIONAL = None
Logger = Literal["csv", "tensorboard"]


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("train", str(__doc__))
    add_training_options(made)
    add_examples_options(made, "training")
    made.add_argument("--resume", action="store_true", help="resume from the last checkpoint in --out")
    made.add_argument("--devices", type=int, default=1, help="processes, each with a part of every batch")
    return made


def add_training_options(made: ArgumentParser) -> None:
    """Add what describes a run."""
    add_data_options(made)
    made.add_argument(
        "--method",
        type=str | None,
        help=f"{', '.join(listing('methods'))}, or package.module:Class (default: at); --method.X sets its option "
        "X, or its maximiser's: --method.steps 10",
    )
    made.add_argument("--extra", type=str | None, metavar="DATA", help="more training data, as --data")
    made.add_argument("--loggers", type=str, default="none", help="csv, tensorboard, both with a comma, or none")
    add_fields(made, Recipe, {"batch_size": Literal["auto"] | int | None})


@dataclass(frozen=True, eq=False)
class Plan:
    """A run as it was asked for, checked as far as that goes without beginning it.

    Attributes:
        model: with random weights.
        data: with the training examples asked for.
        extra: more of them, or None.
        threat: the threat set.
        method: what is minimised.
        recipe: how.
        loggers: in addition to metrics.jsonl.
        out: the run folder.
        config: where data, model and method come from, as config.yaml will hold it.
        selection: which of the training examples; None: all.
    """

    model: "nn.Module"
    data: "Data"
    extra: "Data | None"
    threat: "Threat"
    method: "Method"
    recipe: Recipe
    loggers: Sequence[Logger]
    out: Path
    config: Mapping[str, Any]
    selection: "Selection | None" = None


def plan(given: Parsed, load: "Callable[[str], Data] | None" = None) -> Plan:
    """Return what the options mean; `load` returns data by name or place (default: `load_data`).

    Raises `InputError` for what is missing, unknown or of a wrong type, and for data outside the bounds.
    """
    from unperturbed.cli.data_choices import warn_of_other_scaling, with_choices_of_options
    from unperturbed.cli.network import make_model
    from unperturbed.cli.setup import default_threat, keep_place, read_bounds, slug, taken
    from unperturbed.data.check import check
    from unperturbed.data.sources import load_data, with_applicable
    from unperturbed.methods.at import AT
    from unperturbed.networks.inputs import prepared
    from unperturbed.specs.parameters import convert
    from unperturbed.specs.spec import describe
    from unperturbed.specs.trees import choose
    from unperturbed.threat import Threat

    load = load or partial(load_data, trust=given.trust)
    if given.data is None:
        raise InputError("--data is missing: give a name (unperturbed datasets lists them), a folder, or a file.")
    method = choose(given.trees["method"], "methods", "method", default=AT(), trust=given.trust).build()
    settings = {each.name: getattr(given, each.name) for each in fields(Recipe)}
    recipe = Recipe(**settings | {"batch_size": None if given.batch_size == "auto" else given.batch_size})
    named = [] if given.loggers == "none" else given.loggers.split(",")
    loggers = [convert(name, Logger, "--loggers") for name in named]
    place = str(with_choices_of_options(given, given.data))
    data, chosen = _selected(load(place), given.examples, given.examples_seed)
    threat = Threat.parse(given.threat or default_threat(data), read_bounds(given.bounds, data.bounds))
    check(data.train, threat.bounds, len(data.classes))
    extra_place = given.extra and with_applicable(given.extra, label=given.label, resize=given.resize)
    extra = None if extra_place is None else load(extra_place)
    warn_of_other_scaling(extra_place or "")
    model, model_description = make_model(given.trees["model"], data, recipe.seed, given.trust)
    described, asked = describe(method), taken(given, None)
    out = Path(given.out or Path("runs") / slug(data.name, described["class_path"]))
    config = {
        "data": keep_place(place),
        "classes": list(data.classes),
        "examples": chosen and chosen.record,
        "extra": extra_place and keep_place(extra_place),
        "model": model_description,
        "weights": given.weights and keep_place(given.weights),
        "method": described,
        **describe(asked),
    }
    return Plan(prepared(model, **asked), data, extra, threat, method, recipe, loggers, out, config, chosen)


def run(given: Parsed) -> Result:
    """Train, and return where the run is and how it does on the examples that the probe looks at."""
    from unperturbed.cli.network import load_into
    from unperturbed.training.loop import train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it would say, config.yaml says
    asked = plan(given)
    if given.weights is not None:
        load_into(asked.model, given.weights, given.trees["model"])
    with progress() as report, resumable(given, asked.out):
        trained = train(
            asked.model,
            asked.data,
            asked.threat,
            asked.method,
            asked.recipe,
            out=asked.out,
            resume=given.resume,
            device=given.device,
            devices=given.devices,
            extra=asked.extra,
            loggers=asked.loggers,
            config=asked.config,
            progress=report,
        )
    seen = f"on {trained.clean_accuracy.n} {'held-out training' if trained.held_out else 'training'} examples"
    rows = [
        ("run", str(trained.folder)),
        ("examples", "all" if asked.selection is None else str(asked.selection)),
        (
            "epochs",
            f"{trained.epochs} in {trained.seconds:.0f} s; the best weights are from epoch {trained.best_epoch}",
        ),
        ("clean accuracy", f"{trained.clean_accuracy}, {seen}"),
        ("robust accuracy", f"{trained.robust_accuracy}, {seen}: ten steps, a quick look"),
        *(("method", text) for text in trained.conclusions),
    ]
    own = " --trust" if ":" in str(asked.config["model"]["class_path"]) else ""  # code that the run folder names
    following = f"How robust it is: unperturbed evaluate {shlex.quote(str(asked.out))}{own}"
    value = {**trained.json(), "selection": "all" if asked.selection is None else str(asked.selection)}
    return Result(value, (table("", ("", str(asked.threat)), rows), following))


def _selected(data: "Data", asked: int | str | None, seed: int | None) -> "tuple[Data, Selection | None]":
    """Return the data with the training examples asked for alone, and which they are (None: all)."""
    from unperturbed.data.selection import choose, parse

    if asked is None and seed is not None:
        raise InputError("--examples-seed chooses random examples: say how many with --examples.")
    if asked is None:
        return data, None
    selection = parse(asked, seed)
    if selection.count > len(data.train):
        raise InputError(f"--examples is {asked}, but there are {len(data.train)} training examples: take 1 to that.")
    split, chosen = choose(data.train, selection, data.classes, "training")
    return replace(data, train=split), chosen


@contextmanager
def resumable(given: Parsed, out: Path) -> Iterator[None]:
    """Within: an interruption or failure gets a note on how to resume."""
    lost = device_errors()
    failures: tuple[type[BaseException], ...] = (KeyboardInterrupt, RunError, OSError, *lost)
    try:
        yield
    except NotResumableError:
        raise
    except failures as error:
        again = shlex.join(["unperturbed", "train", *(word for word in given.argv if word != "--resume"), "--resume"])
        stands = (
            f"The last checkpoint stands in {out / CHECKPOINT}" if (out / CHECKPOINT).exists() else "No checkpoint yet"
        )
        failure = RunError(f"The device failed: {error}") if isinstance(error, lost) else error
        failure.add_note(f"{stands}. Resume with:\n  {again}")
        raise failure from error.__cause__


def device_errors() -> tuple[type[RuntimeError], ...]:
    """Return what PyTorch raises when a device is lost or has no memory left."""
    import torch

    return tuple(getattr(torch, name) for name in ("AcceleratorError", "OutOfMemoryError") if hasattr(torch, name))
