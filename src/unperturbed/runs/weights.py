"""Whether a run folder's weights are those of the run that its config.yaml describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from unperturbed.errors import InputError
from unperturbed.reading import parse_json, regular
from unperturbed.runs.files import BEST, CONFIG, MODEL, read_yaml
from unperturbed.runs.tensors import NOTE
from unperturbed.runs.verify import digest

EDITED = ("data", "extra", "weights", "threat", "bounds", "classes")
"""Entries of config.yaml that a user may have changed on purpose, such as data that were moved."""
FREE = ("schema", "unperturbed", "recipe.checkpoint_minutes")
"""What a run's result does not depend on, or is not known to."""


def note_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of each entry of a config.yaml that the result depends on."""
    recipe = config.get("recipe")
    if isinstance(recipe, Mapping):
        config = {**config, "recipe": {name: each for name, each in recipe.items() if f"recipe.{name}" not in FREE}}
    return {name: digest(value)[:16] for name, value in config.items() if name not in FREE}


def check_weights(run: Path) -> list[str]:
    """Check that the best weights belong to the config.yaml in the same folder; return warnings.

    Only what the files say of themselves is compared; their contents are verified when they are read.

    Raises:
        InputError: where the weights, or what describes them, are another run's.
    """
    best, last = _note(run / BEST), _note(run / MODEL)
    if best is None:
        return []
    now = note_of(read_yaml(run / CONFIG))
    differ = sorted(name for name in best.keys() | now.keys() if best.get(name) != now.get(name))
    if not differ:
        return []
    if set(differ) - set(EDITED) or last == now:
        raise InputError(
            f"{run / BEST} is not the file that the run of {run / CONFIG} wrote: they differ in {', '.join(differ)}. "
            "Put back the file that was there, or give --model, --weights and --data without the folder."
        )
    return [f"{run / CONFIG} was changed after the run wrote its weights: {', '.join(differ)}."]


def _note(path: Path) -> dict[str, str] | None:
    """Return what a weights file says of the run that wrote it; None where it says nothing, or is damaged."""
    try:
        with safe_open(regular(path), "pt") as file:
            return dict(parse_json((file.metadata() or {})[NOTE], path)["about"]["config"])
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
