"""The door to data: what the text behind `--data` means, and whatever else callers need of this folder."""

import difflib
import inspect
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from unperturbed.checks import checked
from unperturbed.data.check import check, mean_std
from unperturbed.data.convert import as_data, as_split
from unperturbed.data.digits import load_digits
from unperturbed.data.hub import fetch
from unperturbed.data.image_folder import is_image_folder, load_images
from unperturbed.data.names import DATASETS, HUB_SPECS, LOCAL_FORMS
from unperturbed.data.npz import load_npz
from unperturbed.data.parquet import Choice, find_parquet, load_parquet
from unperturbed.data.split import Data, Split, select
from unperturbed.data.table import load_table
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, dotted, follow, is_function, is_known, returned_type

__all__ = ["Data", "Split", "as_data", "as_split", "check", "load_data", "mean_std", "select"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@checked()
def load_data(spec: str, trust: Trust = OWN) -> Data:
    """Return the data that a text names.

    A name (digits, mnist, cifar10, cifar100, svhn), a folder of Parquet files or of class folders of images, an .npz
    file, `package.module:function` (called without arguments; it returns Data, a pair (x, y), or two of them for
    training and testing), or a Hugging Face dataset id `owner/name`. Where Parquet files leave a choice, it follows the
    place: `owner/name?config=NAME&image=COLUMN&label=COLUMN`. A name goes before a folder of that name (`./mnist`).
    `trust` says which functions are called (the caller's own: all). Raises InputError for everything else.
    """
    return replace(_load(spec, trust), place=keep_place(spec))


def keep_place(spec: str) -> str:
    """Return data or weights given by a path in a form that holds from any folder."""
    if spec in DATASETS:  # a name goes before a folder of that name
        return spec
    place, mark, rest = spec.partition("?")
    return f"{Path(place).resolve()}{mark}{rest}" if Path(place).exists() else spec


def _load(spec: str, trust: Trust) -> Data:
    if spec == "digits":
        return load_digits()
    place, mark, query = spec.partition("?")
    if place in HUB_SPECS:
        joined = "&" if "?" in HUB_SPECS[place] else mark
        return _load_hub(f"{HUB_SPECS[place]}{joined}{query}" if query else HUB_SPECS[place], place)
    if place and Path(place).exists():
        return _load_path(spec)
    if _FUNCTION.fullmatch(spec):
        return _load_function(spec, trust)
    if _HUB_ID.fullmatch(place):
        return _load_hub(spec, place)
    if os.sep in spec or Path(spec).suffix:
        raise InputError(f"There is no file or folder {spec}: give {LOCAL_FORMS}.")
    near = difflib.get_close_matches(spec, DATASETS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(DATASETS)}."
    raise InputError(f"There is no data named {spec!r}: {hint} Otherwise give {LOCAL_FORMS}, or a Hugging Face id.")


def with_choices(spec: str, **choices: str | None) -> str:
    """Return the text with these choices behind the place; they replace those that stand there."""
    place, _, query = spec.partition("?")
    merged = dict(parse_qsl(query, keep_blank_values=True)) | {key: v for key, v in choices.items() if v is not None}
    return f"{place}?{urlencode(merged, safe=',')}" if merged else place


def _load_hub(spec: str, name: str) -> Data:
    repository, choice = _parse(spec)
    return load_parquet(fetch(repository, choice.config), name, choice)


def _load_path(spec: str) -> Data:
    place, choice = _parse(spec)
    path = Path(place)
    name = path.resolve().name
    if path.is_file():
        if choice.resize is not None:
            raise InputError(f"{path} holds no image files, which alone can be resized: resize its arrays first.")
        if path.suffix == ".npz":
            return load_npz(path)
        if path.suffix in (".csv", ".tsv"):
            return load_table(path, path.stem, choice.label, choice.scale)
        raise InputError(f"{path} is a file, but not an .npz file or a .csv table: give {LOCAL_FORMS}.")
    if not path.is_dir():
        raise InputError(f"{path} is neither a regular file nor a folder: give {LOCAL_FORMS}.")
    if find_parquet(path):
        return load_parquet(path, name, choice)
    if is_image_folder(path):
        return load_images(path, name, choice.size)
    raise InputError(f"The folder {path} holds neither Parquet files nor class folders of images: give {LOCAL_FORMS}.")


def _load_function(spec: str, trust: Trust) -> Data:
    function: Any = follow(spec, "--data", trust)
    own = trust.everything or not is_known(spec) or dotted(spec) in trust.named
    if not (is_function(function) or (own and inspect.isclass(function))):
        raise InputError(f"{spec} is no function of your own, but of type {type(function).__name__}: name one.")
    if not own and returned_type(function) is not Data:
        raise InputError(f"{spec} does not say that it returns Data: a file may not name it. Give --data yourself.")
    return as_data(function(), spec)


def _parse(spec: str) -> tuple[str, Choice]:
    """Split `PLACE?config=..&image=..&label=..`."""
    place, _, query = spec.partition("?")
    choices = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(choices) - {"config", "image", "label", "resize", "scale"})
    if unknown:
        raise InputError(f"{spec} has the unknown choice {unknown[0]!r}: there is config, image, label, resize, scale.")
    return place, Choice(**choices)
