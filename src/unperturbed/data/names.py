"""The data sets that go by a short name: the files of `named`, read without importing them.

The first line of a file's docstring is its line in listings. A file has `PLACE`, a place as `load_data` takes it, or a
function `load() -> Data`; and it may have `THREAT`, the usual threat set.
"""

from pathlib import Path

from unperturbed.catalogue import listing, literals_of, summary_of

_FILES = sorted(file for file in Path(__file__).with_name("named").glob("*.py") if file.stem != "__init__")
_LITERALS = {file.stem: literals_of(file) for file in _FILES}

DATASETS: dict[str, str] = {file.stem: summary_of(file) for file in _FILES}
"""What each name stands for, in one line."""

HUB_SPECS: dict[str, str] = {name: str(values["PLACE"]) for name, values in _LITERALS.items() if "PLACE" in values}
"""The place behind a name, with the choices that its columns and configurations leave open."""

THREATS: dict[str, str] = {name: str(values["THREAT"]) for name, values in _LITERALS.items() if "THREAT" in values}
"""The usual threat set of a name."""


def usual_threat(name: str) -> str:
    """Return the threat set that is usual for the data of this name."""
    return THREATS.get(name, "Linf:8/255")


def forms_in_words(without: str = "") -> str:
    """Return what data may be given as, for messages; `without` leaves the form of that example out."""
    examples = [entry.summary for entry in listing("data/forms").values() if entry.summary != without]
    return f"{', '.join(examples)}, or package.module:function"
