"""From options to what commands work on: data, threat, model, device; and back to what a run folder keeps."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.cli.console import say
from unperturbed.cli.data_choices import warn_of_other_scaling, with_choices_of_options
from unperturbed.cli.network import check_same_network, load_into, make_model, model_and_weights, warn_of_other_network
from unperturbed.cli.options import Parsed
from unperturbed.data.names import usual_threat
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
from unperturbed.training.run import Run
from unperturbed.types import Bounds


@dataclass(frozen=True, eq=False)
class Setup:
    """What a command examines, and where it writes.

    Attributes:
        model: with its weights, on its device, in the precision asked for.
        split: the examples.
        data: what they are of.
        threat: the threat set asked for (the first of several), or the usual one.
        usual: the run's own threat set or, without a run, `threat`.
        home: the run folder, or the folder of these weights.
        parts: what tells apart, in the run folder, an examination of other weights, data or bounds.
        selection: what tells apart an examination of some of the examples, or with another seed.
        architecture: the model's name or import path, and its arguments.
        stored: what the run folder says of itself; None: there is none.
        kept: what a folder of these weights keeps of where they came from; None: it is a run folder, which knows.
        examples: which of the test examples, such as "first:100" or "all".
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
        """Write what a folder of these weights keeps: before anything else, so that the same command can resume."""
        if self.kept is not None:
            self.kept.write(self.home)

    def folder(self, threat: Threat | None = None) -> Path:
        """Return the folder of results; of another threat than the run's, a separate one."""
        other = [] if threat is None or str(threat) == str(self.usual) else [str(threat)]
        return self.home / "evaluation" / slug(*self.parts, *other, *self.selection)


def find_setup(given: Parsed, check_examples: Callable[[Split], object] = len) -> Setup:
    """Return the model, the examples and the threat that the options of a command mean, a run folder's beneath them.

    `check_examples` is called on the examples before the model is made.

    Raises `InputError` where something is missing, is not trained, or belongs to other classes.
    """
    device = find_device(given.device)
    run = None if given.run is None else Run.open(given.run, given.trust)
    stored, trust = (None, given.trust) if run is None else (run.record, run.trust)
    place = _place_of(given, stored)
    tree, weights = model_and_weights(given, stored)
    if given.run is not None and given.weights is None:
        for text in check_weights(Path(given.run)):
            say(text, "warning")
    data = _data_of(place, given, stored, trust)
    bounds = read_bounds(
        given.bounds, data.bounds if stored is None or stored.bounds is UNSAID else bounds_of(stored.bounds)
    )
    first = given.threat.split(",")[0] if given.threat else None
    usual = Threat.parse((stored.threat if stored is not None else first) or default_threat(data), bounds)
    threat = Threat.parse(first, bounds) if first else usual
    split, chosen = examples_of(data, given.examples, given.examples_seed)
    check_examples(split)
    model, description = make_model(tree, data, trust=trust)
    if stored is not None:
        check_same_network(model, tree, stored, given.run)
    elif weights is not None:
        warn_of_other_network(model, weights)
    if weights is not None:
        load_into(model, weights, tree)
    asked = taken(given, stored)
    dtype = torch.float64 if given.precision == "64" else torch.float32
    model = cast(prepared(model, **asked), dtype, device)

    home = Path(given.out or given.run or Path("runs") / slug(data.name, description["class_path"]))
    kept = RunRecord(
        threat=f"{threat.norm}:{threat.eps!r}",
        bounds=describe(bounds),
        data=keep_place(place),
        model=ModelSpec(description["class_path"], description.get("init_args", {})),
        weights=keep_place(weights) if weights else None,
        schema=SCHEMA,
        **asked,
    )
    own_folder = bool(given.out or not given.run)
    if own_folder:
        check_free(home, kept)
    parts = _parts(given, stored, data, place, asked)
    selection = (
        *([str(chosen)] if chosen is not None else []),
        *([f"attack seed {given.seed}"] if given.seed else []),
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
        kept if own_folder else None,
        "all" if chosen is None else str(chosen),
    )


def _place_of(given: Parsed, stored: RunRecord | None) -> str:
    """Return the place of the data: of the options, else of the run; raises `InputError` where neither says it."""
    place = with_choices_of_options(given, given.data or (stored.data if stored is not None else None))
    if place is None and given.run is not None:
        raise InputError(f"{Path(given.run) / CONFIG} does not say where the data is: give it by --data.")
    if place is None:
        raise InputError("--data is missing: give a name (unperturbed datasets lists them), a folder, or a file.")
    return place


def _data_of(place: str, given: Parsed, stored: RunRecord | None, trust: Trust) -> Data:
    """Return the data, checked against those that the run was trained on."""
    same = stored is not None and keep_place(place) == stored.data
    data = _with_test(load_data(place, trust), same)
    check_classes(data, stored, other_data=given.data is not None)
    check_same_features(None if stored is None else stored.features, data.features, "here")
    if stored is not None and not same:
        warn_of_other_scaling(place)
    return data


def _parts(
    given: Parsed, stored: RunRecord | None, data: Data, place: str, asked: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return what tells apart, in a run folder, a measurement of other weights, data, bounds or first layers."""
    recorded = taken(None, stored)
    return (
        *([Path(given.weights).stem] if given.run and given.weights else []),
        *([data.name] if stored is not None and stored.data not in (None, keep_place(place)) else []),
        *([f"bounds {given.bounds}"] if given.run and given.bounds else []),
        *([f"{name} {value}" for name, value in asked.items() if given.run and value != recorded.get(name)]),
    )


def _with_test(data: Data, trained_on: bool) -> Data:
    """Return the data; a single split that the run was not trained on is what is examined."""
    if data.test is not None or trained_on:
        return data
    say(
        f"The data {data.name!r} have no test split: all of their examples are evaluated. On examples that a network "
        "was trained on, no accuracy means much.",
        "warning",
    )
    return replace(data, test=data.train)


def default_threat(data: Data) -> str:
    """Return the threat that is usual for the data, by its name."""
    return usual_threat(data.name)


def read_bounds(text: str | None, otherwise: Bounds) -> Bounds:
    """Return the box that `none` or `LOW,HIGH` means."""
    if text is None or text == "none":
        return otherwise if text is None else None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--bounds is {text!r}: write LOW,HIGH, such as 0,1, or none.") from error
    return low, high


def taken(given: Parsed | None, stored: RunRecord | None) -> dict[str, Any]:
    """Return which of `prepared`'s arguments are asked for, by options or else by what a run folder says."""
    chosen: dict[str, Any] = {name: getattr(stored, name, None) for name in ("output", "scale", "normalise")}
    if given is not None:
        options = {"output": given.output, "scale": given.scale, "normalise": given.normalise}
        chosen |= {name: value for name, value in options.items() if value is not None}
    output, numbers = chosen["output"], chosen["normalise"]
    if isinstance(output, str) and re.fullmatch(r"-?\d{1,9}", output):
        chosen["output"] = int(output)
    chosen["normalise"] = (
        read_numbers(numbers, "--normalise") if isinstance(numbers, str) else numbers and tuple(numbers)
    )
    return {name: value for name, value in chosen.items() if value is not None}


def threats_of(given: Parsed, first: Threat) -> list[Threat]:
    """Return the threats of `--threat`, or the one threat with each radius of `--eps`; `first` is the first of them."""
    threats = [Threat.parse(text, first.bounds) for text in given.threat.split(",")] if given.threat else [first]
    if len(threats) > 1 and given.eps is not None:
        raise InputError(f"--eps gives the radii of one threat, but there are {len(threats)}: write the radii in them.")
    names = [str(threat) for threat in threats]
    if len(set(names)) < len(names):
        raise InputError(f"--threat names the same threat twice: {', '.join(names)}.")
    return radii_of(threats[0], given.eps) if given.eps is not None else threats


def radii_of(threat: Threat, eps: str | None) -> list[Threat]:
    """Return the threat with each of these radii."""
    if eps is None:
        return [threat]
    return [replace(threat, eps=Threat.parse(f"{threat.norm}:{text}").eps) for text in eps.split(",")]


def examples_of(data: Data, asked: int | str | None, seed: int | None) -> tuple[Split, Selection | None]:
    """Return the test split, or what `--examples` and `--examples-seed` select of it, and the selection (None: all)."""
    if data.test is None:
        raise InputError(f"The data {data.name!r} has no test split, and robustness is not measured on training data.")
    if seed is not None and asked is None:
        raise InputError("--examples-seed chooses random examples: say how many with --examples.")
    if asked is None:
        return data.test, None
    split, chosen = choose(data.test, parse(asked, seed), data.classes)
    return split, chosen if len(split) < len(data.test) else None


def check_free(folder: Path, record: RunRecord) -> None:
    """Check that a folder is free for the evaluation of one model; raises `InputError` if it holds something else."""
    if (folder / CONFIG).exists():
        earlier = RunRecord.read(folder)
        if replace(earlier, schema=record.schema).plain() != record.plain():
            raise InputError(f"{folder} holds another run: give another --out.")
    elif folder.exists() and not is_free(folder):
        raise InputError(f"{folder} is not empty and holds no run: give another --out.")


def check_classes(data: Data, stored: RunRecord | None, other_data: bool) -> None:
    """Refuse data whose classes are not those of the run; for other data on purpose, say so."""
    now = list(data.classes)
    trained = now if stored is None or stored.classes is None else list(stored.classes)
    if trained == now:
        return
    text = f"The classes were {', '.join(trained[:10])} in training, and are {', '.join(now[:10])} here"
    if not other_data:
        raise InputError(f"{text}: labels would not mean the same. Give the data that the run was made with.")
    say(f"{text}: labels are compared by number.", "warning")
