"""The record of a search in its folder: the values of all trials, and their accuracies on held-out examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.runs.verify import read_sealed, write_sealed
from unperturbed.statistics.intervals import wilson
from unperturbed.sweeps.rows import Validation

FILE = "search.json"


@dataclass(eq=False)
class Trial:
    """One trial of a search.

    Attributes:
        values: as text, by option.
        reached: by the epochs after which trials are compared, its accuracies then.
        error: the reason of its failure.
    """

    values: Mapping[str, str]
    reached: dict[int, Validation] = field(default_factory=dict)
    error: str | None = None

    def json(self) -> dict[str, Any]:
        """Return plain values, with numbers of correct examples."""
        return {
            "values": dict(self.values),
            "reached": {
                str(rung): {
                    "epochs": validation.epochs,
                    "clean": round(validation.clean.value * validation.clean.n),
                    "robust": round(validation.robust.value * validation.robust.n),
                    "n": validation.robust.n,
                    "feasible": validation.feasible,
                }
                for rung, validation in self.reached.items()
            },
            "error": self.error,
        }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Trial":
        """Return the trial of the plain values."""
        reached = {
            int(rung): Validation(
                entry["epochs"],
                wilson(entry["clean"], entry["n"]),
                wilson(entry["robust"], entry["n"]),
                entry["feasible"],
            )
            for rung, entry in value["reached"].items()
        }
        return cls(dict(value["values"]), reached, value["error"])


def validation_of(trained: Mapping[str, Any]) -> Validation:
    """Return the held-out accuracies in a result of `train`, given in the form of `train --json`."""
    n = trained["validation_examples"]
    clean, robust = (wilson(round(trained[name] * n), n) for name in ("clean_accuracy", "robust_accuracy"))
    return Validation(trained["epochs"], clean, robust, trained["feasible"])


def write_trials(folder: Path, settings: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    """Write the record of a search with these settings."""
    write_sealed(folder / FILE, {"settings": dict(settings), "trials": [trial.json() for trial in trials]})


def read_trials(folder: Path, settings: Mapping[str, Any]) -> list[Trial]:
    """Return the recorded trials of a search; none without a record.

    Raises:
        InputError: if the record was changed or is of a search with other settings.
    """
    path = folder / FILE
    if not path.exists():
        return []
    content = read_sealed(path)
    if not content:
        raise InputError(f"{path} is damaged, so that the search cannot be resumed: give another --out.")
    earlier = content["settings"]
    changed = [
        f"{name} was {earlier.get(name)!r} and is {settings.get(name)!r}"
        for name in sorted({*earlier, *settings})
        if earlier.get(name) != settings.get(name)
    ]
    if changed:
        raise InputError(f"{folder} holds another search: {'; '.join(changed)}. Give another --out.")
    return [Trial.of(value) for value in content["trials"]]
