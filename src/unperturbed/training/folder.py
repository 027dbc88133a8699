"""The record of a run in its folder, and the folder's lock."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from unperturbed import runs
from unperturbed.catalogue import short
from unperturbed.data.sources import keep_place
from unperturbed.data.split import Data
from unperturbed.errors import InputError, RunError
from unperturbed.imports import dotted
from unperturbed.networks.logits import unwrapped
from unperturbed.runs.lock import locked
from unperturbed.runs.record import SCHEMA, RunRecord, TrainedOn, plain, write_rows
from unperturbed.runs.weights import FREE
from unperturbed.specs.spec import describe
from unperturbed.threat import Threat
from unperturbed.training.checkpoint import last_of
from unperturbed.training.recipe import Recipe
from unperturbed.weights.rebuild import network_of, spec_of

LATER = ("accumulate", "checkpoint_activations", "layout", "tune")
"""Settings of the recipe that records of earlier versions lack; those runs had the defaults."""


def describe_run(
    threat: Threat, method: object, recipe: Recipe, chosen: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of config.yaml: everything that the result depends on, and the automatic choices.

    Entries of the caller's `config` take precedence over descriptions of the objects.
    """
    field_names = {record_field.name for record_field in fields(RunRecord)}
    notes = {name: value for name, value in config.items() if name not in field_names}
    config = {name: value for name, value in config.items() if name in field_names} | (
        {"notes": notes} if notes else {}
    )
    return {
        "schema": SCHEMA,
        "unperturbed": version("unperturbed"),
        "threat": threat.text,
        "bounds": describe(threat.bounds),
        "method": describe(method),
        **describe(config),
        "recipe": describe(asdict(recipe)),
        "chosen": describe(chosen),
    }


def origin(model: nn.Module, data: Data, extra: object, weights: Path | str | None) -> dict[str, Any]:
    """Return the entries of config.yaml on the network, the data and the first weights, if the objects show them."""
    shown: dict[str, Any] = {"data": data.place, "model": None, "network": plain(network_of(unwrapped(model)))}
    if data.place is not None:
        shown["classes"] = list(data.classes)
    if data.features is not None:
        shown["features"] = list(data.features)
    if (spec := spec_of(unwrapped(model))) is not None:
        shown["model"] = plain(spec)
    rows = write_rows(data.train.names().tolist())
    shown["trained_on"] = plain(TrainedOn(data.name, len(data.train), tuple(data.train.shape), rows))
    shown["extra"] = extra.place if isinstance(extra, Data) else None
    shown["weights"] = None if weights is None else keep_place(str(weights))
    return shown


@contextmanager
def alone(fabric: Fabric, folder: Path | None) -> Iterator[None]:
    """Lock the run folder in this block; the processes of a job share the lock of the first.

    Raises:
        InputError: in all of them, if another job holds it, or it cannot be written into.
    """
    refusal = None
    with ExitStack() as stack:
        if folder is not None and fabric.is_global_zero:
            try:
                stack.enter_context(locked(folder))
            except (InputError, RunError) as error:  # another job, or a folder that takes no lock
                refusal = str(error)
        if fabric.world_size > 1:
            refusal = fabric.broadcast(refusal)
        if refusal is not None:
            raise InputError(refusal)
        try:
            yield
        except KeyboardInterrupt:  # a signal may have reached this process only
            for process in getattr(fabric.strategy.launcher, "procs", ()):
                process.terminate()
            raise


def claim(folder: Path, description: Mapping[str, Any], resume: bool) -> None:
    """Check that the folder is free or, with `resume`, that it holds the same run.

    Raises:
        InputError: if it holds something else.
    """
    if not folder.exists():
        return
    if runs.is_free(folder):
        return
    if not (folder / runs.CONFIG).is_file():
        names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise InputError(f"The output folder {folder} is not empty ({listed}) and holds no run: choose another one.")
    if not resume:
        raise InputError(
            f"The output folder {folder} already holds a run: pass --resume to resume it, or choose another."
        )
    record = RunRecord.read(folder)
    earlier, current = _flat(record.plain()), _flat(RunRecord.of(description, "this run").plain())
    defaults = {f"recipe.{name}": getattr(Recipe(), name) for name in LATER}
    earlier = {key: value for key, value in defaults.items() if key in current} | earlier
    # an older schema with fewer fields
    free = {*FREE} | (current.keys() - earlier.keys() if record.schema < SCHEMA else set())
    changed = [
        f"{key} was {earlier.get(key)!r} and is {current.get(key)!r}"
        for key in sorted(earlier.keys() | current.keys())
        if key not in free and earlier.get(key) != current.get(key)
    ]
    if changed:
        raise InputError(
            f"The output folder {folder} holds another run: {'; '.join(changed)}. Choose another folder; to train on "
            f"from where this one ended, start there with --weights {folder / runs.BEST} (in Python, weights=...)."
        )
    if (folder / runs.RESULT).exists() and last_of(folder) is None:
        raise InputError(
            f"{folder} holds a finished run without its checkpoint (a copy without `checkpoints`?): it cannot be "
            "resumed, and training anew would replace its weights. Choose another folder."
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()
        }
    is_class = prefix.rpartition(".")[2] == "class_path" and isinstance(value, str)
    return {prefix: short(dotted(value)) if is_class else value}  # like earlier versions
