"""Shards of WebDataset: tar files with an image and a label (`.cls`, a class number) under each key."""

import re
import tarfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from unperturbed.data.forms.base import Form
from unperturbed.data.forms.image_folder import is_image_folder
from unperturbed.data.forms.parquet import TEST, TRAIN, find_parquet
from unperturbed.data.pictures import picture_split
from unperturbed.data.split import Data, Split, hold_out, number_classes, select
from unperturbed.errors import InputError

IMAGES = ("png", "jpg", "jpeg", "webp", "ppm", "pgm", "bmp")
LABEL = "cls"
MOST_SHARDS = 100_000
LONGEST_LABEL = 18
"""Bytes of a class number."""
_HELD_OUT = 0.2
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})")


@dataclass(frozen=True)
class Member:
    """The place of an image: its shard, and its bytes there."""

    shard: Path
    start: int
    size: int


def load_shards(place: str, name: str, size: tuple[int, int] | None = None) -> Data:
    """Return shards as Data; images are read when they are used, from any position of an uncompressed tar file.

    Args:
        place: shards with braces, `shards/{000..009}.tar`; or a folder of train*.tar and test*.tar (val*.tar, ...).
        name: of the data.
        size: height and width of resized images.

    Without test shards, the same 20% of every class become the test split, and a warning says so.
    """
    if not Path(place).is_dir():
        return _divided(_split(expanded(place), f"the shards {place}", size), name, place)
    shards = sorted(Path(place).glob("*.tar"))
    named = {split: [path for path in shards if path.name.startswith(split)] for split in (TRAIN[0], *TEST)}
    test_name = next((split for split in TEST if named[split]), None)
    if test_name is None:
        return _divided(_split(shards, f"the shards of {name}", size), name, place)
    if not named[TRAIN[0]]:
        raise InputError(f"{place} has no training shards, only {test_name}*.tar: name them train*.tar.")
    train, test = (_split(named[split], f"the {split} shards of {name}", size) for split in (TRAIN[0], test_name))
    if test.shape != train.shape:
        raise InputError(f"Images of {name} have shape {train.shape} in training and {test.shape} in the test split.")
    return Data(name, train, test, number_classes(train, test))


def expanded(place: str) -> list[Path]:
    """Return the files of a place with braces: `{000..009}` is a range, `{a,b}` are alternatives.

    Raises:
        InputError: for braces of another form, too many files, and files that do not exist.
    """
    parts, choices = _BRACES.split(place)[::2], [_alternatives(text, place) for text in _BRACES.findall(place)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MOST_SHARDS:
        raise InputError(f"{place} means {total:,} files, but at most {MOST_SHARDS:,} shards are read: name fewer.")
    files = [
        Path("".join([part + text for part, text in zip(parts, (*texts, ""), strict=True)]))
        for texts in product(*choices)
    ]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of the {len(files)} shards of {place} do not exist (first: {missing[0]}).")
    return files


def _alternatives(text: str, place: str) -> Sequence[str]:
    match = _RANGE.fullmatch(text)
    if match is None and "," in text:
        return text.split(",")
    if match is None or int(match[2]) - int(match[1]) not in range(MOST_SHARDS):
        raise InputError(f"{{{text}}} in {place} is no range: write {{000..009}}, or {{a,b}}.")
    return [str(number).zfill(len(match[1])) for number in range(int(match[1]), int(match[2]) + 1)]


def _divided(split: Split, name: str, place: str) -> Data:
    train, test = hold_out(split.labels, _HELD_OUT)
    warnings.warn(
        f"{place} has no test shards: {len(test)} of its {len(split)} images ({_HELD_OUT:.0%} of every class, always "
        "the same) are held out as the test split. A folder of train*.tar and test*.tar has both.",
        stacklevel=2,
    )
    return Data(name, select(split, train), select(split, test), number_classes(split))


def _split(shards: Sequence[Path], where: str, size: tuple[int, int] | None) -> Split:
    members: list[Member] = []
    labels: list[int] = []
    for shard in shards:
        for member, label in _examples(shard):
            members.append(member)
            labels.append(label)
    if not members:
        raise InputError(f"There are no images in {where}: a shard holds KEY.png (or .jpg, ...) and KEY.cls.")

    def read(ids: Sequence[int]) -> list[bytes]:
        content = dict[int, bytes]()
        for shard in dict.fromkeys(members[i].shard for i in ids):
            with shard.open("rb") as file:
                for i in (i for i in ids if members[i].shard == shard):
                    file.seek(members[i].start)
                    content[i] = file.read(members[i].size)
        return [content[i] for i in ids]

    return picture_split(read, torch.tensor(labels, dtype=torch.int64), where, size)


def _examples(shard: Path) -> list[tuple[Member, int]]:
    """Return the images of a shard with their labels, in the order of the file; nothing is unpacked."""
    images, labels = dict[str, Member](), dict[str, int]()
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                folder, _, file = entry.name.rpartition("/")
                key, _, ending = file.partition(".")
                key = f"{folder}/{key}"
                if not entry.isreg() or file.startswith("."):
                    continue
                if ending.lower() in IMAGES:
                    if key in images:
                        raise InputError(f"{shard} holds two images of the key {key.lstrip('/')}: a key has one.")
                    images[key] = Member(shard, entry.offset_data, entry.size)
                elif ending == LABEL:
                    stream = archive.extractfile(entry) if entry.size <= LONGEST_LABEL else None
                    labels[key] = _label(stream.read() if stream is not None else b"", key, shard)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{shard} cannot be read as an uncompressed tar file ({error}): unpack compressed ones (gunzip)."
        ) from error
    without = [key.lstrip("/") for key in images if key not in labels]
    if without:
        raise InputError(f"{len(without)} images of {shard} have no label (first: {without[0]}): add KEY.{LABEL}.")
    return [(member, labels[key]) for key, member in images.items()]


def _label(content: bytes, key: str, shard: Path) -> int:
    text = content.strip()
    if not text.isdigit():
        raise InputError(
            f"The label {key.lstrip('/')}.{LABEL} of {shard} is {text[:LONGEST_LABEL]!r}, but must be a class number."
        )
    return int(text)


def _fits(place: str) -> bool:
    if place.endswith(".tar") and not Path(place).is_dir():
        return True
    folder = Path(place)
    if not folder.is_dir() or not any(folder.glob("*.tar")):
        return False
    return not find_parquet(folder) and not is_image_folder(folder)


SHARDS: Form = Form(
    "shards of WebDataset",
    "shards of WebDataset (shards/{000..009}.tar, or a folder of train*.tar and test*.tar)",
    fits=_fits,
    load=lambda place, name, choice: load_shards(place, name, choice.size),
    takes=("resize",),
    remedy="it takes resize=H,W, and the files .cls are the labels",
)
