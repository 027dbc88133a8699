"""The place of the data with the choices of `--label` and `--resize`."""

from unperturbed.cli.console import say
from unperturbed.cli.options import Parsed
from unperturbed.data.sources import choices_of, with_choices
from unperturbed.errors import InputError


def with_choices_of_options(parsed: Parsed, place: str | None) -> str | None:
    """Return the place of the data with the choices of `--label` and `--resize`.

    Raises `InputError` if `--data` contradicts them.
    """
    chosen = {name: value for name, value in (("label", parsed.label), ("resize", parsed.resize)) if value is not None}
    if place is None or not chosen:
        return place
    for name, value in chosen.items():
        stated = choices_of(parsed.data).get(name, value) if parsed.data else value
        if stated != value:
            raise InputError(f"--data says {name}={stated}, but --{name} is {value}: give one of them.")
    return with_choices(place, **chosen)


def warn_of_other_scaling(place: str) -> None:
    """Warn that a table's features are mapped by their ranges, which may differ from those of the training data."""
    if choices_of(place).get("scale") == "unit":
        say(f"{place} is mapped to [0, 1] by its own ranges, not by those of the training data.", "warning")
