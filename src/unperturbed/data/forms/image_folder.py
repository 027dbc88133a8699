"""A folder of class folders of images."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from unperturbed.data.forms.base import Form
from unperturbed.data.forms.parquet import TEST, TRAIN, find_parquet
from unperturbed.data.pictures import Picture, picture_split
from unperturbed.data.split import Data, Split, hold_out, select
from unperturbed.errors import InputError

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_HELD_OUT = 0.2


def is_image_folder(folder: Path) -> bool:
    """Tell whether a folder, or its train folder, holds folders of images."""
    return any(_images(sub) for sub in _folders(_train_folder(folder) or folder))


def load_images(folder: Path, name: str, size: tuple[int, int] | None = None) -> Data:
    """Return a folder of images as Data: train/CLASS/* and test/CLASS/*, or CLASS/*; files and classes in name order.

    Without train and test folders, the same 20% of every class become the test split, and a warning says so.
    """
    train_folder = _train_folder(folder)
    if train_folder is None:
        return _divided(folder, name, size)
    classes = _classes(train_folder)
    test_folder = next((folder / s for s in TEST if (folder / s).is_dir()), None)
    train = _split(train_folder, classes, f"{name}/{train_folder.name}", size)
    test = _split(test_folder, classes, f"{name}/{test_folder.name}", size) if test_folder else None
    if test is not None and test.shape != train.shape:
        raise InputError(f"Images of {name} have shape {train.shape} in training and {test.shape} in the test split.")
    return Data(name, train, test, classes)


def _divided(folder: Path, name: str, size: tuple[int, int] | None) -> Data:
    classes = _classes(folder)
    images = _split(folder, classes, name, size)
    train, test = hold_out(images.labels, _HELD_OUT)
    warnings.warn(
        f"{folder} has no train and test folders: {len(test)} of its {len(images)} images ({_HELD_OUT:.0%} of every "
        "class, always the same) are held out as the test split.",
        stacklevel=2,
    )
    return Data(name, select(images, train), select(images, test), classes)


def _train_folder(folder: Path) -> Path | None:
    return next((folder / s for s in TRAIN if (folder / s).is_dir()), None)


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sub.name for sub in _folders(folder) if _images(sub))


def _split(folder: Path, classes: Sequence[str], where: str, size: tuple[int, int] | None) -> Split:
    empty = [sub.name for sub in _folders(folder) if not _images(sub)]
    if empty:
        warnings.warn(
            f"{len(empty)} of the folders in {folder} hold no images and make no class: {', '.join(empty[:5])}"
            f"{', ...' * (len(empty) > 5)}.",
            stacklevel=3,
        )
    unknown = sorted(set(_classes(folder)) - set(classes))
    if unknown:
        raise InputError(f"{folder} has classes that are not in the training folder: {', '.join(unknown)}.")
    files: list[Picture] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files_of_class = _images(folder / name)
        files += files_of_class
        labels += [label] * len(files_of_class)
    return picture_split(lambda ids: [files[i] for i in ids], torch.tensor(labels, dtype=torch.int64), where, size)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS and not p.name.startswith(".")]
    if broken := [p for p in files if p.is_symlink() and not p.exists()]:
        raise InputError(f"{len(broken)} images in {folder} are links to nothing (first: {broken[0].name}): mend them.")
    return sorted(p for p in files if p.is_file())


IMAGES: Form = Form(
    "a folder of image files",
    "a folder of class folders of images (train/CLASS/*.png, test/CLASS/*.png)",
    fits=lambda place: Path(place).is_dir() and not find_parquet(Path(place)) and is_image_folder(Path(place)),
    load=lambda place, name, choice: load_images(Path(place), name, choice.size),
    takes=("resize",),
    remedy="it takes resize=H,W, and its class folders are the labels",
)
