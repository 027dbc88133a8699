"""The set-up of a command from its options: data, threat, model, device, and the record of a run folder."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.checks import NUMERAL
from unperturbed.cli.console import say
from unperturbed.cli.data_choices import warn_of_other_scaling, with_choices_of_options
from unperturbed.cli.network import (
    check_first_layer,
    check_same_network,
    check_trained,
    load_into,
    make_model,
    model_and_weights,
    warn_of_other_network,
)
from unperturbed.cli.options import Parsed
from unperturbed.cli.threat_options import with_feature_eps
from unperturbed.data.names import THREATS, usual_threat
from unperturbed.data.selection import Selection, choose, parse
from unperturbed.data.sources import keep_place as keep_place
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.imports import Trust
from unperturbed.networks.device import find_device
from unperturbed.networks.dtype import cast
from unperturbed.networks.inputs import prepared, read_numbers
from unperturbed.runs import CONFIG, is_free
from unperturbed.runs.files import slug as slug
from unperturbed.runs.record import SCHEMA, UNSAID, ModelSpec, RunRecord
from unperturbed.runs.weights import check_weights
from unperturbed.specs.spec import bounds_of, describe
from unperturbed.threat import Threat
from unperturbed.training.prepare import check_same_features
from unperturbed.training.run import Run, training_examples
from unperturbed.types import Bounds


@dataclass(frozen=True, eq=False)
class Setup:
    """The set-up of a command: model, examples, threat and folders.

    Attributes:
        model: with its weights, on its device, in the requested precision.
        split: the examples.
        data: the data of the examples.
        threat: the requested threat set (the first of several), or the usual one.
        usual: the run's threat set or, without a run, `threat`.
        home: the run folder, or the folder of these weights.
        parts: parts of names in the run folder for results of other weights, data or bounds.
        selection: parts of names for results on selected examples, or with another seed.
        architecture: the model's name or import path, and its arguments.
        stored: the record of the run folder, or None.
        kept: the record for a folder of these weights; None for a run folder, which has one.
        examples: the selection of test examples, such as "first:100" or "all".
    """

    model: nn.Module
    split: Split
    data: Data
    threat: Threat
    usual: Threat
    home: Path
    parts: tuple[str, ...]
    selection: tuple[str, ...]
    architecture: Mapping[str, Any]
    stored: RunRecord | None
    kept: RunRecord | None
    examples: str

    def keep(self) -> None:
        """Write the record of a folder of these weights first, so that the same command can resume."""
        if self.kept is not None:
            self.kept.write(self.home)

    def folder(self, threat: Threat | None = None) -> Path:
        """Return the folder of results, a separate one for another threat than the run's."""
        other_threat = [] if threat is None or str(threat) == str(self.usual) else [str(threat)]
        return self.home / "evaluation" / slug(*self.parts, *other_threat, *self.selection)


def find_setup(parsed: Parsed, check_examples: Callable[[Split], object] = len, trained: bool = True) -> Setup:
    """Return the model, the examples and the threat of a command's options, with defaults from a run folder.

    `check_examples` is called on the examples before the model is built. With `trained=False` a model may have the
    weights that it is built with.

    Raises `InputError` if something is missing, untrained, or belongs to other classes.
    """
    device = find_device(parsed.device)
    for text in parsed.threat.split(",") if parsed.threat else ():
        Threat.parse(text, None)  # before data are read
    read_bounds(parsed.bounds, None)
    run = None if parsed.run is None else Run.open(Path(parsed.run), parsed.trust)  # on this machine: results go there
    stored, trust = (None, parsed.trust) if run is None else (run.record, run.trust)
    place = _place_of(parsed, stored)
    tree, weights = model_and_weights(parsed, stored, trained)
    if parsed.run is not None and parsed.weights is None:
        for text in check_weights(Path(parsed.run)):
            say(text, "warning")
    data = _data_of(place, parsed, stored, trust)
    bounds = read_bounds(
        parsed.bounds, data.bounds if stored is None or stored.bounds is UNSAID else bounds_of(stored.bounds)
    )
    first = parsed.threat.split(",")[0] if parsed.threat else None
    usual = Threat.parse((stored.threat if stored is not None else first) or default_threat(data), bounds)
    threat = with_feature_eps(Threat.parse(first, bounds) if first else usual, parsed.feature_eps, data)
    if usual.shares is not None and threat.shares is None:
        say(f"--threat {threat} has one eps for all features, other than the run's {usual}: features that never "
            "changed there may change. Give --feature-eps again to keep them.", "warning")  # fmt: skip
    usual = threat if stored is None else usual
    split, chosen = examples_of(data, parsed.examples, parsed.examples_seed)
    check_examples(split)
    model, description = make_model(tree, data, trust=trust)
    if stored is not None:
        check_same_network(model, tree, stored, parsed.run)
    elif weights is not None:
        warn_of_other_network(model, weights)
    if weights is not None:
        load_into(model, weights, tree, parsed.trust)
    else:
        check_trained(model)
    preparation = taken(parsed, stored)
    check_first_layer(model, preparation)
    dtype = torch.float64 if parsed.precision == "64" else torch.float32
    model = cast(prepared(model, **preparation), dtype, device)

    home = Path(parsed.out or parsed.run or Path("runs") / slug(data.name, description["class_path"]))
    provenance = RunRecord(
        threat=threat.text,
        bounds=describe(bounds),
        data=keep_place(place),
        model=ModelSpec(description["class_path"], description.get("init_args", {})),
        weights=keep_place(weights) if weights else None,
        schema=SCHEMA,
        **preparation,
    )
    own_folder = bool(parsed.out or not parsed.run)
    if own_folder:
        check_free(home, provenance)
    parts = _parts(parsed, stored, data, place, preparation)
    selection = (
        *([str(chosen)] if chosen is not None else []),
        *([f"attack seed {parsed.seed}"] if parsed.seed else []),
    )
    return Setup(
        model,
        split,
        data,
        threat,
        usual,
        home,
        parts,
        selection,
        description,
        stored,
        provenance if own_folder else None,
        "all" if chosen is None else str(chosen),
    )


def _place_of(parsed: Parsed, stored: RunRecord | None) -> str:
    """Return the place of the data, from the options or the run; raises `InputError` if both lack it."""
    place = with_choices_of_options(parsed, parsed.data or (stored.data if stored is not None else None))
    if place is None and parsed.run is not None:
        raise InputError(f"{Path(parsed.run) / CONFIG} has no place of the data: give --data.")
    if place is None:
        raise InputError("--data is missing: give a name (unperturbed datasets lists them), a folder, or a file.")
    return place


def _data_of(place: str, parsed: Parsed, stored: RunRecord | None, trust: Trust) -> Data:
    """Return the data, checked against the training data of the run."""
    same_data = stored is not None and keep_place(place) == stored.data
    data = _with_test(load_data(place, trust), same_data)
    check_classes(data, stored, other_data=parsed.data is not None)
    check_same_features(None if stored is None else stored.features, data.features, "here")
    if stored is not None and same_data:
        warn_of_changes(data, stored, parsed.run)
    elif stored is not None:
        warn_of_other_scaling(place)
    return data


def warn_of_changes(data: Data, stored: RunRecord, run: str) -> None:
    """Warn if the data at the same place are no longer those of the training."""
    try:
        training_examples(stored, data, run)
    except InputError:
        say(
            f"The training data of {run}, {stored.data}, have changed since: test examples may be among those that it "
            "was trained on, and a table may be scaled otherwise.",
            "warning",
        )


def _parts(
    parsed: Parsed, stored: RunRecord | None, data: Data, place: str, preparation: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the parts of names in a run folder for results of other weights, data, bounds or first layers."""
    recorded = taken(None, stored)
    return (
        *([Path(parsed.weights).stem] if parsed.run and parsed.weights else []),
        *([data.name] if stored is not None and stored.data not in (None, keep_place(place)) else []),
        *([f"bounds {parsed.bounds}"] if parsed.run and parsed.bounds else []),
        *([f"{name} {value}" for name, value in preparation.items() if parsed.run and value != recorded.get(name)]),
    )


def _with_test(data: Data, trained_on: bool) -> Data:
    """Return the data; a single split other than the training data is the test split."""
    if data.test is not None or trained_on:
        return data
    say(
        f"The data {data.name!r} have no test split: all of their examples are evaluated. On training examples, "
        "accuracies mean little.",
        "warning",
    )
    return replace(data, test=data.train)


def default_threat(data: Data) -> str:
    """Return the usual threat of the data, by its name; it is a guess, and said to be one, for other than images."""
    threat = usual_threat(data.name)
    if data.name not in THREATS and not data.train.eight_bit:
        say(
            f"No threat was given, so it is {threat}, which is usual for images in [0, 1]. Give one in the units of "
            "these features, such as --threat Linf:0.1.",
            "warning",
        )
    return threat


def read_bounds(text: str | None, otherwise: Bounds) -> Bounds:
    """Return the box of `none` or `LOW,HIGH`."""
    if text is None or text == "none":
        return otherwise if text is None else None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(map(NUMERAL.fullmatch, parts)):
        raise InputError(f"--bounds is {text!r}: write LOW,HIGH, such as 0,1, or none.")
    return float(parts[0]), float(parts[1])


def taken(parsed: Parsed | None, stored: RunRecord | None) -> dict[str, Any]:
    """Return the arguments for `prepared`, from the options or else from a run folder."""
    chosen: dict[str, Any] = {name: getattr(stored, name, None) for name in ("output", "scale", "normalise")}
    if parsed is not None:
        options = {"output": parsed.output, "scale": parsed.scale, "normalise": parsed.normalise}
        chosen |= {name: value for name, value in options.items() if value is not None}
    output, numbers = chosen["output"], chosen["normalise"]
    if isinstance(output, str) and re.fullmatch(r"-?\d{1,9}", output):
        chosen["output"] = int(output)
    chosen["normalise"] = (
        read_numbers(numbers, "--normalise") if isinstance(numbers, str) else numbers and tuple(numbers)
    )
    return {name: value for name, value in chosen.items() if value is not None}


def examples_of(data: Data, requested: int | str | None, seed: int | None) -> tuple[Split, Selection | None]:
    """Return the test split or its selection by `--examples` and `--examples-seed`, and the selection (None: all)."""
    if data.test is None:
        raise InputError(f"The data {data.name!r} has no test split, and robustness is not measured on training data.")
    if seed is not None and requested is None:
        raise InputError("--examples-seed chooses random examples: give their number by --examples.")
    if requested is None:
        return data.test, None
    split, chosen = choose(data.test, parse(requested, seed), data.classes)
    return split, chosen if len(split) < len(data.test) else None


def check_free(folder: Path, record: RunRecord) -> None:
    """Check that a folder is free for the evaluation of one model; raises `InputError` if it has other contents."""
    if (folder / CONFIG).exists():
        earlier = RunRecord.read(folder)
        if replace(earlier, schema=record.schema).plain() != record.plain():
            raise InputError(f"{folder} holds another run: give another --out.")
    elif folder.exists() and not is_free(folder):
        raise InputError(f"{folder} is not empty and holds no run: give another --out.")


def check_classes(data: Data, stored: RunRecord | None, other_data: bool) -> None:
    """Raise InputError for data with other classes than the run's; for data by --data, warn."""
    present = list(data.classes)
    trained = present if stored is None or stored.classes is None else list(stored.classes)
    if trained == present:
        return
    text = f"The classes were {_listed(trained)} in training, and are {_listed(present)} here"
    if not other_data:
        raise InputError(f"{text}: labels would have different meanings. Give the data of the run.")
    say(f"{text}: labels are compared by number.", "warning")


def _listed(classes: Sequence[str]) -> str:
    """Return the number of classes, the first ones and the last."""
    names = ", ".join(classes[:10]) + (f", ... {classes[-1]}" if len(classes) > 10 else "")
    return f"{len(classes)} ({names})"
