"""The data sets that go by a short name: the files of `named`, read without importing them.

The first line of a file's docstring is its line in listings. A file has `PLACE`, an argument for `load_data`, or a
function `load() -> Data`; it may have `THREAT`, the usual threat set.
"""

from pathlib import Path

from unperturbed.catalogue import listing, literals_of, summary_of

_FILES = sorted(file for file in Path(__file__).with_name("named").glob("*.py") if file.stem != "__init__")
_LITERALS = {file.stem: literals_of(file) for file in _FILES}

DATASETS: dict[str, str] = {file.stem: summary_of(file) for file in _FILES}
"""The description of every name, in one line."""

HUB_SPECS: dict[str, str] = {name: str(values["PLACE"]) for name, values in _LITERALS.items() if "PLACE" in values}
"""The place behind a name, with its choices of columns and configurations."""

THREATS: dict[str, str] = {name: str(values["THREAT"]) for name, values in _LITERALS.items() if "THREAT" in values}
"""The usual threat set of a name."""


def usual_threat(name: str) -> str:
    """Return the usual threat set for the data of this name."""
    return THREATS.get(name, "Linf:8/255")


def forms_in_words(without: str = "") -> str:
    """Return the forms of data in words, for messages; `without` excludes the form of that example."""
    examples = [entry.summary for entry in listing("data/forms").values() if entry.summary != without]
    return f"{', '.join(examples)}, or package.module:function"
