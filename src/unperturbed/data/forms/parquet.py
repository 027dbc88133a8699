"""Parquet files in the layout of the Hugging Face hub: an image column and a label column, found by their types."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unperturbed.data import pictures
from unperturbed.data.forms.base import Choice, Form
from unperturbed.data.pictures import Picture, Pictures, picture_split
from unperturbed.data.split import Data, Split, number_classes
from unperturbed.errors import InputError
from unperturbed.reading import check_memory, parse_json

TRAIN = ("train", "training")
TEST = ("test", "testing", "validation", "valid", "val", "dev")
"""Names of the test split, in order of preference; the first with labels is used."""

ROW = 12
"""Bytes that a row takes at least: its label, or the number and the place of its image."""
TAKES = ("config", "image", "label", "resize")
"""The choices that Parquet files may leave."""
REMEDY = "scale=unit is of tables (--scale 255 is of the model), so leave it out"

_SPLIT = re.compile(r"(?:partial-)?([a-z]+)(?![a-z])")
_SPECIAL = re.compile(r"[*?\[\]]|::")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


def find_parquet(folder: Path) -> list[PurePosixPath]:
    """Return the Parquet files in a folder and up to two levels below, relative to it, in order."""
    paths = (p for depth in ("*", "*/*", "*/*/*") for p in folder.glob(f"{depth}.parquet"))
    return sorted(PurePosixPath(p.relative_to(folder).as_posix()) for p in paths)


def load_parquet(folder: Path, name: str, choice: Choice) -> Data:
    """Return the Parquet files of a folder as Data.

    The split follows from the name of a file or of its folder (train*, test*, validation*, ...), the configuration by
    the folders above, except "data". Raises InputError if files, configurations or columns are missing or ambiguous.
    """
    files = choose_files(find_parquet(folder), str(folder), choice.config)
    train_name = next((s for s in TRAIN if s in files), None)
    if train_name is None:
        raise InputError(f"{folder} has no training files, only {', '.join(files)}: name them train*.parquet.")
    splits: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    for split_name in (train_name, *(s for s in TEST if s in files)):
        paths = [folder / p for p in files[split_name]]
        _check_shards(paths)
        columns = find_columns(paths[0], choice)
        for path in paths[1:]:
            if (names := find_columns(path, choice).classes) != columns.classes:
                raise InputError(
                    f"The classes are {_listed(columns.classes)} in {paths[0]} and "
                    f"{_listed(names)} in {path}: a label must mean the same class in all files of a split, "
                    "so write them with the same names."
                )
        split = _load_split(paths, columns, f"the {split_name} split of {name}", choice.size)
        if split is not None:
            if classes and columns.classes and columns.classes != classes:
                raise InputError(
                    f"The classes of {name} are {_listed(classes)} in training and {_listed(columns.classes)} in the "
                    f"{split_name} split: a label must mean the same class in both, so write them with the same names."
                )
            splits[split_name] = split
            classes = classes or columns.classes
        if len(splits) == 2:
            break
    train, test = splits.get(train_name), next((s for k, s in splits.items() if k != train_name), None)
    if train is None:
        raise InputError(f"The labels of the {train_name} split of {name} are all negative, which stands for hidden.")
    if test is not None and test.shape != train.shape:
        raise InputError(f"Images of {name} have shape {train.shape} in training and {test.shape} in the test split.")
    return Data(name, train, test, classes or number_classes(train, test))


def choose_files(paths: Iterable[PurePosixPath], place: str, config: str | None) -> dict[str, list[PurePosixPath]]:
    """Return the files of each split of one configuration; if no split is recognised in any name, all files train."""
    configs: dict[str, dict[str, list[PurePosixPath]]] = {}
    for path in paths:
        split, folder = _split_and_config(path)
        configs.setdefault(folder, {}).setdefault(split, []).append(path)
    configs = {folder: _recognised(splits) for folder, splits in configs.items()}
    if config is not None and config not in configs:
        listed = ", ".join(name for name in configs if name)
        remedy = f"only {listed}" if listed else "and no other, so leave ?config= out"
        raise InputError(f"{place} has no configuration {config!r}, {remedy}.")
    if config is None and len(configs) > 1:
        names = ", ".join(name or "(top folder)" for name in configs)
        raise InputError(f"{place} has several configurations: {names}. Choose one: {place}?config=NAME.")
    return configs[config if config is not None else next(iter(configs))]


def _split_and_config(path: PurePosixPath) -> tuple[str, str]:
    folders = [part for part in path.parts[:-1] if part != "data"]
    for depth, part in ((None, path.stem), (-1, folders[-1] if folders else "")):
        match = _SPLIT.match(part.lower())
        if match and match[1] in (*TRAIN, *TEST):
            return match[1], "/".join(folders[:depth])
    return "", "/".join(folders)


def _recognised(splits: dict[str, list[PurePosixPath]]) -> dict[str, list[PurePosixPath]]:
    named = {name: paths for name, paths in splits.items() if name}
    return named or {TRAIN[0]: splits[""]}


def _check_shards(paths: Sequence[Path]) -> None:
    """Raise InputError for a split with missing files: training on the others would look like training on all."""
    shards = [m for m in (_SHARD.search(p.name) for p in paths) if m]
    if shards and len(shards) != int(shards[0][2]):
        raise InputError(
            f"{paths[0].parent} has {len(shards)} of the {int(shards[0][2])} files of the split of {paths[0].name}: "
            "fetch the missing ones."
        )


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels, and the names of the classes (empty if the file has none)."""

    image: str
    label: str
    classes: tuple[str, ...]


def find_columns(path: Path, choice: Choice) -> Columns:
    """Return the image column and the label column of a file: by the Hugging Face feature types, else by Arrow's."""
    try:
        with path.open("rb") as file:  # in a path, Arrow reads a colon as the end of a scheme
            schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}): fetch it again.") from error
    features = _features(schema, path)
    images = [f.name for f in schema if _is_image(f.type, features.get(f.name, {}))]
    integers = [f.name for f in schema if pa.types.is_integer(f.type)]
    labels = [name for name in integers if features.get(name, {}).get("_type") == "ClassLabel"] or integers
    image = _pick(choice.image, images, "image", path, schema.names)
    label = _pick(choice.label, labels, "label", path, schema.names)
    return Columns(image, label, _class_names(features.get(label, {}).get("names")))


def _listed(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:5])}{', ...' * (len(classes) > 5)} ({len(classes)})" if classes else "numbers"


def _class_names(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _features(schema: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Return the Hugging Face features that a file declares, by column."""
    value = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"), f"The metadata (huggingface) of {path}")
    for name in ("info", "features"):
        value = value.get(name) if isinstance(value, dict) else None
    features = value if isinstance(value, dict) else {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _is_image(kind: Any, feature: dict[str, Any]) -> bool:
    if feature:
        return bool(feature.get("_type") == "Image")
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))


def _pick(chosen: str | None, candidates: list[str], role: str, path: Path, names: list[str]) -> str:
    if chosen is not None and chosen in names:
        return chosen
    if chosen is None and len(candidates) == 1:
        return candidates[0]
    if chosen is not None:
        raise InputError(f"{path.name} has no column {chosen!r}, only {', '.join(names)}.")
    if candidates:
        raise InputError(
            f"{path.name} has several columns that could be the {role}: {', '.join(candidates)}. "
            f"Choose one behind the place of the data: ?{role}=NAME."
        )
    expected = "images (bytes of PNG or JPEG)" if role == "image" else "integer labels"
    raise InputError(f"{path.name} has no column of {expected}, only {', '.join(names)}: give other data as .npz.")


def _load_split(paths: list[Path], columns: Columns, where: str, size: tuple[int, int] | None) -> Split | None:
    """Return the split, or None if its labels are hidden (all negative, the hub's convention)."""
    labels = _labels(paths, columns.label, where)
    if len(labels) and bool((labels < 0).all()):
        return None
    return picture_split(_pictures(paths, columns.image, where), labels, where, size)


def _labels(paths: list[Path], column: str, where: str) -> torch.Tensor:
    values = pa.chunked_array(
        [c for p in paths for c in _column(p, column).chunks], type=_column(paths[0], column).type
    )
    if not pa.types.is_integer(values.type):
        raise InputError(f"The labels of {where} (column {column}) are {values.type}, not integers.")
    if values.null_count:
        raise InputError(f"{values.null_count} labels of {where} (column {column}) are missing: remove these rows.")
    return torch.from_numpy(values.to_numpy().astype(np.int64))


def _pictures(paths: list[Path], column: str, where: str) -> Pictures:
    """Return the encoded images: in memory if they fit, otherwise memory-mapped."""
    if sum(p.stat().st_size for p in paths) <= pictures.MEMORY_LIMIT:
        chunks = [c for p in paths for c in _column(p, column).chunks]
        encoded = [b for chunk in chunks for b in _encoded(chunk, where)]
        return lambda ids: [encoded[i] for i in ids]
    import datasets

    names = [str(p.absolute()) for p in paths]
    if special := next((p for p in names if _SPECIAL.search(p)), None):  # datasets would read it as a pattern
        raise InputError(f"{special} is part of a large dataset, and its path holds one of * ? [ ] or ::: rename it.")
    with _quietly():
        table = datasets.Dataset.from_parquet(names, columns=[column]).with_format("arrow")
    return lambda ids: [b for chunk in table[list(ids)].column(column).chunks for b in _encoded(chunk, where)]


def _column(path: Path, column: str) -> Any:
    """Return a column, each of its distinct texts or images held once: many rows may repeat a large one."""
    try:
        with path.open("rb") as file:
            kind = pq.read_schema(file).field(column).type
            leaf = f"{column}.bytes" if pa.types.is_struct(kind) else column
            table = pq.ParquetFile(file, read_dictionary=[] if pa.types.is_integer(kind) else [leaf])
            _check_size(table.metadata, leaf, path)
            if table.num_row_groups == 0:
                return table.read(columns=[leaf]).column(column)
            # one by one: several dictionaries inside a struct cannot be read together
            groups = [table.read_row_group(k, columns=[leaf]) for k in range(table.num_row_groups)]
            return pa.concat_tables(groups).column(column)
    except (pa.ArrowException, OSError, KeyError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}): fetch it again.") from error


def _check_size(metadata: Any, leaf: str, path: Path) -> None:
    """Raise InputError for a column that would not fit into memory, by the file's metadata: a row may take no space."""
    size = ROW * metadata.num_rows
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        parts = (group.column(j) for j in range(group.num_columns))
        size += sum(part.total_uncompressed_size for part in parts if part.path_in_schema == leaf)
    check_memory(size, f"The column {leaf} of {path} ({metadata.num_rows:,} rows)", "give fewer rows")


def _encoded(chunk: Any, where: str) -> list[Picture]:
    column = chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
    if pa.types.is_dictionary(column.type):  # each distinct image once
        distinct = column.dictionary.to_pylist()
        values = [None if k is None else distinct[k] for k in column.indices.to_pylist()]
    else:
        values = column.to_pylist()
    missing = sum(value is None for value in values)
    if missing:
        raise InputError(f"{missing} images of {where} are missing or only named, not embedded: embed their bytes.")
    return [value for value in values if value is not None]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the progress bars of `datasets` off the screen."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


PARQUET: Form = Form(
    "data in Parquet files",
    "a folder of Parquet files (train*.parquet, test*.parquet)",
    fits=lambda place: Path(place).is_dir() and bool(find_parquet(Path(place))),
    load=lambda place, name, choice: load_parquet(Path(place), name, choice),
    takes=TAKES,
    remedy=REMEDY,
)
