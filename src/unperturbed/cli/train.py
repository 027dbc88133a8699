"""Train a robust classifier under a threat, and store it in a run folder."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, is_first_process, progress, say, shell_words, table
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, add_fields, new_parser
from unperturbed.errors import InputError, NotResumableError, RunError
from unperturbed.runs import CHECKPOINT
from unperturbed.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from unperturbed.data.selection import Selection
    from unperturbed.data.split import Data, Split
    from unperturbed.methods.base import Method
    from unperturbed.threat import Threat

POSITIONAL = None
REPORTED = ("inputs not finite", "inputs outside the bounds", "eps")
"""Faults of the data that training refuses or warns of."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("train", str(__doc__))
    add_training_options(command_parser)
    add_examples_options(command_parser, "training")
    command_parser.add_argument("--resume", action="store_true", help="resume the run in --out at its last checkpoint")
    command_parser.add_argument(
        "--devices", type=int, default=1, help="processes on this machine, each with a part of every batch"
    )
    command_parser.add_argument("--nodes", type=int, default=1, help="machines, of which torchrun or srun starts all")
    command_parser.add_argument(
        "--strategy",
        type=Literal["ddp", "fsdp"],
        default="ddp",
        help="ddp (each process has all weights) or fsdp (weights and optimiser are sharded over the processes)",
    )
    return command_parser


def add_training_options(command_parser: ArgumentParser) -> None:
    """Add the options of a run."""
    add_data_options(command_parser)
    command_parser.add_argument(
        "--method",
        type=str | None,
        help=f"{', '.join(listing('methods'))}, or package.module:Class (default: at); --method.X sets its option "
        "X, or its maximiser's: --method.steps 10",
    )
    command_parser.add_argument("--extra", type=str | None, metavar="DATA", help="more training data, as --data")
    command_parser.add_argument(
        "--track", type=str, default="none", metavar="NAME,...", help=f"{', '.join(listing('trackers'))}, or none"
    )
    command_parser.add_argument(
        "--recipe",
        type=Literal["default", "strong", "fast"],
        default="default",
        help="settings of published protocols for the options below: strong (weight averaging, label smoothing, flips "
        "and crops) or fast (short schedules of methods of one step); an option that is given wins",
    )
    add_fields(command_parser, Recipe, {"batch_size": Literal["auto"] | int | None})


@dataclass(frozen=True, eq=False)
class Plan:
    """A requested run, checked as far as possible before it begins.

    Attributes:
        model: with random weights.
        data: with the requested training examples.
        extra: more training data, or None.
        threat: the threat set.
        method: the training method.
        recipe: the settings of the optimisation.
        track: the names of trackers, in addition to metrics.jsonl.
        out: the run folder.
        config: the sources of data, model and method, for config.yaml.
        selection: of the training examples; None: all.
    """

    model: "nn.Module"
    data: "Data"
    extra: "Data | None"
    threat: "Threat"
    method: "Method"
    recipe: Recipe
    track: Sequence[str]
    out: Path
    config: Mapping[str, Any]
    selection: "Selection | None" = None


def plan(parsed: Parsed, load: "Callable[[str], Data] | None" = None) -> Plan:
    """Return the plan of the options; `load` returns data by name or place (default: `load_data`).

    Raises `InputError` for missing, unknown or badly typed options, and for data outside the bounds.
    """
    from unperturbed.cli.data_choices import warn_of_other_scaling, with_choices_of_options
    from unperturbed.cli.network import check_first_layer, make_model
    from unperturbed.cli.setup import default_threat, keep_place, read_bounds, slug, taken
    from unperturbed.cli.threat_options import with_feature_eps
    from unperturbed.data.check import check
    from unperturbed.data.sources import load_data, with_applicable
    from unperturbed.methods.at import AT
    from unperturbed.networks.inputs import prepared
    from unperturbed.specs.spec import describe
    from unperturbed.specs.trees import choose
    from unperturbed.threat import Threat
    from unperturbed.trackers.base import find_trackers

    load = load or partial(load_data, trust=parsed.trust.giving(parsed.data, parsed.extra))
    if parsed.threat is not None:
        Threat.parse(parsed.threat, read_bounds(parsed.bounds, None))  # before data are read
    if parsed.data is None:
        raise InputError(
            "--data is missing: give a name (unperturbed datasets lists them), a folder, or a file."
            + (" --resume goes with the options that the run began with." if parsed.resume else "")
        )
    method = choose(parsed.trees["method"], "methods", "method", default=AT(), trust=parsed.trust).build()
    settings = {recipe_field.name: getattr(parsed, recipe_field.name) for recipe_field in fields(Recipe)}
    recipe = Recipe(**settings | {"batch_size": None if parsed.batch_size == "auto" else parsed.batch_size})
    track = [] if parsed.track == "none" else parsed.track.split(",")
    find_trackers(track, Path())
    place = str(with_choices_of_options(parsed, parsed.data))
    data, chosen = _selected(load(place), parsed.examples, parsed.examples_seed)
    threat = Threat.parse(parsed.threat or default_threat(data), read_bounds(parsed.bounds, data.bounds))
    threat = with_feature_eps(threat, parsed.feature_eps, data)
    check(data.train, threat.bounds, len(data.classes))
    extra_place = parsed.extra and with_applicable(parsed.extra, label=parsed.label, resize=parsed.resize)
    extra = None if extra_place is None else load(extra_place)
    warn_of_other_scaling(extra_place or "")
    model, model_description = make_model(parsed.trees["model"], data, recipe.seed, parsed.trust)
    recipe = _named(parsed, recipe, data, model, method)
    described, preparation = describe(method), taken(parsed, None)
    check_first_layer(model, preparation)
    out = Path(parsed.out or Path("runs") / slug(data.name, described["class_path"]))
    config = {
        "data": keep_place(place),
        "classes": list(data.classes),
        "examples": chosen and chosen.record,
        "extra": extra_place and keep_place(extra_place),
        "model": model_description,
        "weights": parsed.weights and keep_place(parsed.weights),
        "method": described,
        **describe(preparation),
        **({} if parsed.recipe == "default" else {"named_recipe": parsed.recipe}),
    }
    return Plan(prepared(model, **preparation), data, extra, threat, method, recipe, track, out, config, chosen)


def _named(parsed: Parsed, base: Recipe, data: "Data", model: "nn.Module", method: "Method") -> Recipe:
    """Return the recipe of --recipe with the options of the command line, and print the settings that it chose."""
    from unperturbed.training.recipes import named_recipe

    recipe = named_recipe(parsed.recipe, base, data, model, method, parsed.given)
    before, after = asdict(base), asdict(recipe)
    chosen = [f"{name.replace('_', '-')} {after[name]}" for name in after if after[name] != before[name]]
    if chosen:
        say(f"Recipe {parsed.recipe}: {', '.join(chosen)}.")
    elif parsed.recipe != "default":
        say(f"Recipe {parsed.recipe} has no settings for this method, data and length of training.", "warning")
    return recipe


def run(parsed: Parsed, until: int | None = None) -> Result:
    """Train until the end of an epoch (None: the last); return run folder and accuracies on the probe's examples."""
    from unperturbed.architectures.by_name import needs_trust
    from unperturbed.cli.network import load_into
    from unperturbed.training.loop import train
    from unperturbed.training.processes import check_launcher

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # config.yaml has the same content
    check_launcher(parsed.devices, parsed.nodes)
    run_plan = plan(parsed)
    if parsed.resume and not run_plan.out.exists():
        raise InputError(
            f"--resume: there is no run folder {run_plan.out}, so nothing can be resumed. Leave out --resume to begin "
            "the run, or give the folder of an earlier one by --out."
        )
    if parsed.weights is not None:
        load_into(run_plan.model, parsed.weights, parsed.trees["model"], parsed.trust)
    _warn_of_data(run_plan.data.train, run_plan.threat)
    with progress() as report, resumable(parsed, run_plan.out):
        trained = train(
            run_plan.model,
            run_plan.data,
            run_plan.threat,
            run_plan.method,
            run_plan.recipe,
            out=run_plan.out,
            resume=parsed.resume,
            until=until,
            device=parsed.device,
            devices=parsed.devices,
            nodes=parsed.nodes,
            strategy=parsed.strategy,
            extra=run_plan.extra,
            track=run_plan.track,
            config=run_plan.config,
            progress=report,
        )
    where = f"on {trained.clean_accuracy.n} {'held-out training' if trained.held_out else 'training'} examples"
    rows = [
        ("run", str(trained.folder)),
        ("examples", "all" if run_plan.selection is None else str(run_plan.selection)),
        (
            "epochs",
            f"{trained.epochs} in {trained.seconds:.0f} s; the best weights are from epoch {trained.best_epoch}",
        ),
        ("clean accuracy", f"{trained.clean_accuracy}, {where}"),
        ("robust accuracy", f"{trained.robust_accuracy}, {where}: ten steps, a quick look"),
        *(("method", text) for text in trained.conclusions),
    ]
    model = run_plan.config["model"]
    trust_option = " --trust" if needs_trust(str(model["class_path"]), [*model.get("init_args", ())]) else ""
    following = f"To measure robust accuracy: unperturbed evaluate {shell_words([str(run_plan.out)])}{trust_option}"
    value = {**trained.json(), "selection": "all" if run_plan.selection is None else str(run_plan.selection)}
    return Result(value, (table("", ("", str(run_plan.threat)), rows), following))


def _warn_of_data(split: "Split", threat: "Threat") -> None:
    """Warn of faults of the data that training would not notice: what `doctor` finds without the network."""
    from unperturbed.examinations.data_faults import data_faults

    if is_first_process():
        for fault in data_faults(split, threat):
            if fault.name not in REPORTED:
                say(f"{fault.name}: {fault.text}", "warning")


def _selected(data: "Data", requested: int | str | None, seed: int | None) -> "tuple[Data, Selection | None]":
    """Return the data with the requested training examples only, and their selection (None: all)."""
    from unperturbed.data.selection import choose, parse

    if requested is None and seed is not None:
        raise InputError("--examples-seed chooses random examples: give their number by --examples.")
    if requested is None:
        return data, None
    selection = parse(requested, seed)
    if selection.count > len(data.train):
        raise InputError(
            f"--examples is {requested}, but there are {len(data.train)} training examples: take 1 to that."
        )
    split, chosen = choose(data.train, selection, data.classes, "training")
    return replace(data, train=split), chosen


@contextmanager
def resumable(parsed: Parsed, out: Path) -> Iterator[None]:
    """Add a note on resuming to an interruption or failure in this block."""
    lost = device_errors()
    failures: tuple[type[BaseException], ...] = (KeyboardInterrupt, RunError, OSError, *lost)
    try:
        yield
    except NotResumableError:
        raise
    except failures as error:
        words = ["unperturbed", "train", *(word for word in parsed.argv if word != "--resume")]
        again = f"Resume with:\n  {shell_words([*words, '--resume'])}"
        if not out.exists():
            again = f"Nothing was written; begin again with:\n  {shell_words(words)}"
        stands = f"The last checkpoint is {out / CHECKPOINT}" if (out / CHECKPOINT).exists() else "No checkpoint yet"
        failure = RunError(f"The device failed: {error}") if isinstance(error, lost) else error
        failure.add_note(f"{stands}. {again}")
        raise failure from error.__cause__


def device_errors() -> tuple[type[RuntimeError], ...]:
    """Return PyTorch's errors for a lost or full device."""
    import torch

    return tuple(getattr(torch, name) for name in ("AcceleratorError", "OutOfMemoryError") if hasattr(torch, name))
