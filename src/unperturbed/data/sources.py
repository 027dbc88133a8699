"""The entry to data: the meaning of the text after `--data`, and the other public names of this folder."""

import inspect
import os
import re
from dataclasses import asdict, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from unperturbed.catalogue import listing
from unperturbed.checks import checked
from unperturbed.data.check import check, mean_std
from unperturbed.data.convert import as_data, as_split
from unperturbed.data.dataset_class import has_splits, load_splits
from unperturbed.data.forms.base import NAMES, Choice, Form
from unperturbed.data.forms.hub import HUB
from unperturbed.data.names import DATASETS, HUB_SPECS, forms_in_words
from unperturbed.data.split import Data, Split, select
from unperturbed.errors import InputError, hint
from unperturbed.imports import OWN, Trust, dotted, follow, is_function, is_known, returned_type
from unperturbed.networks.guard import trying
from unperturbed.storage.data_copy import data_copy
from unperturbed.storage.places import is_url

__all__ = ["Data", "Split", "as_data", "as_split", "check", "load_data", "mean_std", "select"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@checked()
def load_data(spec: str, trust: Trust = OWN) -> Data:
    """Return the data that a text names.

    A name (digits, mnist, cifar10, cifar100, svhn), a folder of Parquet files or of class folders of images, an .npz
    file, the URL of such a folder or file in an object store (`s3://bucket/images`), shards of WebDataset
    (`shards/{000..009}.tar`), `package.module:function` (called without arguments; it returns Data, a pair (x, y), or
    two of them for training and testing), a class of datasets with splits
    (`medmnist:PathMNIST`, `torchvision.datasets:CIFAR10?root=FOLDER`; nothing is downloaded), or a Hugging Face dataset
    id `owner/name`. Choices within Parquet files follow the place: `owner/name?config=NAME&image=COLUMN&label=COLUMN`;
    tables take `label` and `scale=unit`, image files, shards and Parquet files `resize=H,W`. A name takes precedence
    over a folder of that name (`./mnist`). `trust` decides which functions are called (by default all) and what is
    downloaded. Raises InputError for anything else, and for choices that do not apply.
    """
    try:
        return replace(_load(spec, trust), place=keep_place(spec))
    except OSError as error:  # unreadable, or deleted meanwhile
        raise InputError(f"The data {spec!r:.80} cannot be read: {error}.") from error


def keep_place(spec: str) -> str:
    """Return the text for data or weights with an absolute path, valid in any folder."""
    place, mark, rest = spec.partition("?")
    if place in DATASETS or is_url(place):  # a name takes precedence over a folder of that name
        return spec
    if (root := choices_of(spec).get("root")) is not None:
        return with_choices(spec, root=str(Path(root).resolve()))
    if place.endswith(".tar"):  # shards, with braces
        return f"{Path(place).absolute()}{mark}{rest}"
    try:
        return f"{Path(place).resolve()}{mark}{rest}" if Path(place).exists() else spec
    except (OSError, ValueError):  # no name of a file, such as one that is too long
        return spec


def _load(spec: str, trust: Trust) -> Data:
    place, choice = _parse(spec)
    may_download = trust.everything or place in trust.places or place in DATASETS
    if is_url(place):
        place = str(data_copy(place, may_download))
    form = _form(place, trust)
    form.check(choice, place)
    path = Path(place)
    name = path.stem if path.is_file() else path.resolve().name if path.exists() else place
    load = form.load if form.load_copy is None or may_download else form.load_copy
    return load(place, place if place in DATASETS else name, choice)


@cache
def _forms() -> tuple[Form, ...]:
    """Return the forms of data that have a file in `forms`."""
    return tuple(cast(Form, follow(entry.path, "--data", OWN)) for entry in listing("data/forms").values())


def _form(place: str, trust: Trust) -> Form:
    """Return the form of the data at a place; raises InputError if there are no data, or several forms fit."""
    if place in DATASETS:
        return _named_form(place)
    fitting = [form for form in _forms() if place and form.fits(place)]
    if len(fitting) > 1:
        raise InputError(f"{place} may be {' or '.join(form.name for form in fitting)}: leave only one of them there.")
    if fitting:
        return fitting[0]
    path = Path(place)
    if place and path.exists():
        kind = "folder" if path.is_dir() else "file" if path.is_file() else "place"
        raise InputError(f"The {kind} {path} holds no data in a form that can be read: give {forms_in_words()}.")
    if _FUNCTION.fullmatch(place):
        return _function_form(trust)
    if os.sep in place or path.suffix:
        raise InputError(f"There is no file or folder {place}: give {forms_in_words()}.")
    raise InputError(f"There is no data named {place!r}. {hint(place, DATASETS)} Otherwise give {forms_in_words()}.")


def _named_form(name: str) -> Form:
    """Return the form of a named data set: a built-in one, or a dataset of the hub."""
    if name not in HUB_SPECS:
        module = f"unperturbed.data.named.{name}"
        return Form(
            "a built-in data set",
            "a name",
            fits=lambda place: place == name,
            load=lambda place, name, choice: cast(Data, import_module(module).load()),
        )

    def load(place: str, name: str, choice: Choice) -> Data:
        repository, usual = _parse(HUB_SPECS[place])
        return HUB.load(repository, name, replace(usual, **{k: v for k, v in asdict(choice).items() if v is not None}))

    return replace(HUB, fits=lambda place: place == name, load=load)


def _function_form(trust: Trust) -> Form:
    """Return the form of data from a function; `trust` decides which functions are called."""
    return Form(
        "a function",
        "package.module:function",
        fits=lambda place: _FUNCTION.fullmatch(place) is not None,
        load=lambda place, name, choice: _load_function(place, trust, choice.root),
        takes=("root",),
        remedy="leave it out, and do this in the function",
    )


def with_choices(spec: str, **choices: str | None) -> str:
    """Return the text with these choices behind the place, which replace earlier ones."""
    chosen = {name: value for name, value in choices.items() if value is not None}
    return _merged(spec, f"?{urlencode(chosen, safe=',/')}" if chosen else "")


def choices_of(spec: str) -> dict[str, str]:
    """Return the choices behind a place."""
    return dict(_pairs(spec.partition("?")[2]))


def with_applicable(spec: str, **choices: str | None) -> str:
    """Return the text of a data set, completed by the choices that apply to its form."""
    place, choice = _parse(spec)
    takes = NAMES if is_url(place) else _form(place, OWN).takes  # a URL's form shows once its files are here
    return with_choices(spec, **{k: value for k, value in choices.items() if k in takes and getattr(choice, k) is None})


def _merged(below: str, above: str) -> str:
    """Return the place of `below` with its choices, overridden by those of `above`."""
    place, _, query = below.partition("?")
    merged = {key: value for spec in (query, above.partition("?")[2]) for key, value in _pairs(spec)}
    return f"{place}?{urlencode(merged, safe=',/')}" if merged else place


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _load_function(spec: str, trust: Trust, root: str | None = None) -> Data:
    function: Any = follow(spec, "--data", trust)
    callers = trust.everything or not is_known(spec) or dotted(spec) in trust.named
    if not (is_function(function) or (callers and inspect.isclass(function))):
        raise InputError(f"{spec} is no function, but of type {type(function).__name__}: name one.")
    if not callers and returned_type(function) is not Data:
        raise InputError(f"{spec} has no return annotation Data: a file may not name it. Give --data yourself.")
    if has_splits(function):
        return load_splits(spec, function, root)
    if root is not None:
        raise InputError(
            f"root={root} (?root=) does not apply to {spec}, which is no class of datasets with splits: leave it out."
        )
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
