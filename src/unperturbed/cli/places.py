"""The place of the data, with the choices that options make behind it."""

from unperturbed.cli.console import say
from unperturbed.cli.options import Parsed
from unperturbed.data.sources import choices_of, with_choices
from unperturbed.errors import InputError


def placed(given: Parsed, place: str | None) -> str | None:
    """Return the place of the data with what `--label` and `--resize` choose.

    Raises `InputError` where `--data` itself chooses otherwise.
    """
    asked = {name: value for name, value in (("label", given.label), ("resize", given.resize)) if value is not None}
    if place is None or not asked:
        return place
    for name, value in asked.items():
        made = choices_of(given.data).get(name, value) if given.data else value
        if made != value:
            raise InputError(f"--data says {name}={made}, but --{name} is {value}: give one of them.")
    return with_choices(place, **asked)


def warn_of_other_scaling(place: str) -> None:
    """Say that a table's features are mapped by their own ranges, where others may have been meant."""
    if choices_of(place).get("scale") == "unit":
        say(f"{place} is mapped to [0, 1] by its own ranges, not by those of the training data.", "warning")
