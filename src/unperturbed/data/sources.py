"""The entry to data: the meaning of the text after `--data`, and the other public names of this folder."""

import inspect
import os
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from unperturbed.checks import checked
from unperturbed.data.check import check, mean_std
from unperturbed.data.convert import as_data, as_split
from unperturbed.data.forms import BUILT_IN, FUNCTION, IMAGES, NAMES, NPZ, PARQUET, TABLE, Choice, Form
from unperturbed.data.hub import fetch
from unperturbed.data.image_folder import is_image_folder, load_images
from unperturbed.data.names import DATASETS, HUB_SPECS, LOCAL_FORMS
from unperturbed.data.npz import load_npz
from unperturbed.data.parquet import find_parquet, load_parquet
from unperturbed.data.split import Data, Split, select
from unperturbed.data.table import load_table
from unperturbed.errors import InputError, hint
from unperturbed.imports import OWN, Trust, dotted, follow, is_function, is_known, returned_type
from unperturbed.networks.guard import trying

__all__ = ["Data", "Split", "as_data", "as_split", "check", "load_data", "mean_std", "select"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@checked()
def load_data(spec: str, trust: Trust = OWN) -> Data:
    """Return the data that a text names.

    A name (digits, mnist, cifar10, cifar100, svhn), a folder of Parquet files or of class folders of images, an .npz
    file, `package.module:function` (called without arguments; it returns Data, a pair (x, y), or two of them for
    training and testing), or a Hugging Face dataset id `owner/name`. Choices within Parquet files follow the place:
    `owner/name?config=NAME&image=COLUMN&label=COLUMN`; tables take `label` and `scale=unit`, image files and Parquet
    files `resize=H,W`. A name takes precedence over a folder of that name (`./mnist`). `trust` decides which functions
    are called (by default all). Raises InputError for anything else, and for choices that do not apply.
    """
    try:
        return replace(_load(spec, trust), place=keep_place(spec))
    except OSError as error:  # unreadable, or deleted meanwhile
        raise InputError(f"The data {spec!r:.80} cannot be read: {error}.") from error


def keep_place(spec: str) -> str:
    """Return the text for data or weights with an absolute path, valid in any folder."""
    place, mark, rest = spec.partition("?")
    if place in DATASETS:  # a name takes precedence over a folder of that name
        return spec
    return f"{Path(place).resolve()}{mark}{rest}" if Path(place).exists() else spec


def _load(spec: str, trust: Trust) -> Data:
    place, choice = _parse(spec)
    form = _form(place)
    form.check(choice, place)
    if form is BUILT_IN:
        loaded: Data = import_module(f"unperturbed.data.named.{place}").load()
        return loaded
    if form is FUNCTION:
        return _load_function(place, trust)
    path = Path(place)
    if place in HUB_SPECS or not path.exists():
        repository, choice = _parse(_merged(HUB_SPECS[place], spec)) if place in HUB_SPECS else (place, choice)
        return load_parquet(fetch(repository, choice.config), place, choice)
    if form is NPZ:
        return load_npz(path)
    if form is TABLE:
        return load_table(path, path.stem, choice.label, choice.scale)
    name = path.resolve().name
    return load_parquet(path, name, choice) if form is PARQUET else load_images(path, name, choice.size)


def _form(place: str) -> Form:
    """Return the form of the data at a place; raises InputError if there is none."""
    if place in DATASETS:
        return PARQUET if place in HUB_SPECS else BUILT_IN
    if place and Path(place).exists():
        return _form_of_path(Path(place))
    if _FUNCTION.fullmatch(place):
        return FUNCTION
    if _HUB_ID.fullmatch(place):
        return PARQUET
    if os.sep in place or Path(place).suffix:
        raise InputError(f"There is no file or folder {place}: give {LOCAL_FORMS}.")
    raise InputError(
        f"There is no data named {place!r}. {hint(place, DATASETS)} Otherwise give {LOCAL_FORMS}, or a Hugging Face id."
    )


def _form_of_path(path: Path) -> Form:
    if path.is_file():
        forms = {".npz": NPZ, ".csv": TABLE, ".tsv": TABLE}
        if path.suffix in forms:
            return forms[path.suffix]
        raise InputError(f"{path} is a file, but not an .npz file or a .csv table: give {LOCAL_FORMS}.")
    if not path.is_dir():
        raise InputError(f"{path} is neither a regular file nor a folder: give {LOCAL_FORMS}.")
    if find_parquet(path):
        return PARQUET
    if is_image_folder(path):
        return IMAGES
    raise InputError(f"The folder {path} holds neither Parquet files nor class folders of images: give {LOCAL_FORMS}.")


def with_choices(spec: str, **choices: str | None) -> str:
    """Return the text with these choices behind the place, which replace earlier ones."""
    chosen = {name: value for name, value in choices.items() if value is not None}
    return _merged(spec, f"?{urlencode(chosen, safe=',')}" if chosen else "")


def choices_of(spec: str) -> dict[str, str]:
    """Return the choices behind a place."""
    return dict(_pairs(spec.partition("?")[2]))


def with_applicable(spec: str, **choices: str | None) -> str:
    """Return the text with the choices that apply to its form and that it does not make yet."""
    place, choice = _parse(spec)
    takes = _form(place).takes
    return with_choices(spec, **{k: value for k, value in choices.items() if k in takes and getattr(choice, k) is None})


def _merged(below: str, above: str) -> str:
    """Return the place of `below` with its choices, overridden by those of `above`."""
    place, _, query = below.partition("?")
    merged = {key: value for spec in (query, above.partition("?")[2]) for key, value in _pairs(spec)}
    return f"{place}?{urlencode(merged, safe=',')}" if merged else place


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _load_function(spec: str, trust: Trust) -> Data:
    function: Any = follow(spec, "--data", trust)
    callers = trust.everything or not is_known(spec) or dotted(spec) in trust.named
    if not (is_function(function) or (callers and inspect.isclass(function))):
        raise InputError(f"{spec} is no function, but of type {type(function).__name__}: name one.")
    if not callers and returned_type(function) is not Data:
        raise InputError(f"{spec} has no return annotation Data: a file may not name it. Give --data yourself.")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(f"{spec} is called without arguments, but takes some ({error}): name another one.") from error
    with trying(f"calling {spec}"):
        return as_data(function(), spec)


def _parse(spec: str) -> tuple[str, Choice]:
    """Split `PLACE?config=..&image=..&label=..`; raises InputError for unknown and repeated choices."""
    place, _, query = spec.partition("?")
    pairs = _pairs(query)
    names = [name for name, _ in pairs]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InputError(f"{spec} has the unknown choice {unknown[0]!r}: there is {', '.join(NAMES)}.")
    twice = [name for name in NAMES if names.count(name) > 1]
    if twice:
        raise InputError(f"{spec} chooses {twice[0]} twice: give one value.")
    empty = [name for name, value in pairs if not value.strip() and name != "config"]
    if empty:
        raise InputError(f"{spec} has no value for {empty[0]}: give one, or leave it out.")
    return place, Choice(**dict(pairs))
