"""A check that a run folder's weights belong to the run in its config.yaml."""

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
"""Entries of config.yaml that a user may change, such as the place of moved data."""
FREE = ("schema", "unperturbed", "recipe.checkpoint_minutes", "recipe.tune")
"""Entries that a run's result does not depend on."""


def note_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return hashes of the entries of a config.yaml that the result depends on."""
    recipe = config.get("recipe")
    if isinstance(recipe, Mapping):
        config = {
            **config,
            "recipe": {name: part for name, part in recipe.items() if f"recipe.{name}" not in FREE},
        }
    return {name: digest(value)[:16] for name, value in config.items() if name not in FREE}


def check_weights(run: Path) -> list[str]:
    """Check that the best weights belong to the config.yaml in the same folder; return warnings.

    Only the recorded hashes are compared; contents are verified at reading.

    Raises:
        InputError: if the weights, or their description, belong to another run.
    """
    best, last = _note(run / BEST), _note(run / MODEL)
    if best is None:
        return []
    note = note_of(read_yaml(run / CONFIG))
    differ = sorted(name for name in best.keys() | note.keys() if best.get(name) != note.get(name))
    if not differ:
        return []
    if set(differ) - set(EDITED) or last == note:
        raise InputError(
            f"{run / BEST} is not the file that the run of {run / CONFIG} wrote: they differ in {', '.join(differ)}. "
            "Put back the file that was there, or give --model, --weights and --data without the folder."
        )
    return [f"{run / CONFIG} was changed after the run wrote its weights: {', '.join(differ)}."]


def _note(path: Path) -> dict[str, str] | None:
    """Return the record of the run in a weights file; None if it has none, or is damaged."""
    try:
        with safe_open(regular(path), "pt") as file:
            return dict(parse_json((file.metadata() or {})[NOTE], path)["about"]["config"])
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
