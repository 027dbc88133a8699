"""Tables of features with a label column: CSV files."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import torch

from unperturbed.checks import LARGEST, NUMERAL
from unperturbed.data.check import uneven_features
from unperturbed.data.forms.base import Form
from unperturbed.data.split import ArraySplit, Data, hold_out, named_labels, select
from unperturbed.errors import InputError
from unperturbed.reading import check_memory

HELD_OUT = 0.2
_LABELS = ("label", "class", "target", "y")


def load_table(path: Path, name: str, label: str | None, scale: str | None) -> Data:
    """Return a CSV file (its first line names the columns) as Data; the same 20% of every class are the test split.

    Labels may be texts or numbers; their distinct values are the classes, in order. All other columns are features
    and must be numbers. The bounds are the lowest and highest value of each feature; with `scale="unit"` features are
    mapped to [0, 1] by them. A warning says so, and where features have very different ranges.

    Raises InputError for missing values, columns that are no numbers, and an unknown or ambiguous label column.
    """
    if scale not in (None, "none", "unit"):
        raise InputError(f"The scale is {scale!r}, but must be unit or none.")
    table = _read(path)
    column = _label_column(table, label, path)
    names = [feature for feature in table.column_names if feature != column]
    x = np.stack([_numbers(table, feature, path) for feature in names], 1)
    labels, classes = _labels(table, column, path)
    low, high = x.min(0), x.max(0)
    bounds: tuple[float, float] | tuple[torch.Tensor, torch.Tensor] = (0.0, 1.0)
    if scale == "unit":
        x = (x - low) / np.where(high > low, high - low, 1)
    else:
        bounds = torch.from_numpy(low.astype(np.float32)), torch.from_numpy(high.astype(np.float32))
    every = ArraySplit(torch.from_numpy(x.astype(np.float32)), labels)
    _tell_ranges(every, names, path)
    train, test = hold_out(labels, HELD_OUT)
    if len(test) == 0 or len(train) == 0:
        raise InputError(f"{path} has too few examples of a class to hold out {HELD_OUT:.0%}: give more, or an .npz.")
    if len(classes) < 2:
        raise InputError(f"All labels of {path} (column {column!r}) are {classes[0]}: there is nothing to tell apart.")
    warnings.warn(
        f"{len(test)} of the {len(every)} rows of {path} (20% of every class, always the same) are held out as the "
        "test split.",
        stacklevel=2,
    )
    return Data(name, select(every, train), select(every, test), classes, bounds, features=tuple(names))


def _read(path: Path) -> pa.Table:
    check_memory(8 * path.stat().st_size, f"The table {path}", "give fewer rows")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        header = [name.strip() for name in header]
        options = pc.ConvertOptions(strings_can_be_null=True)
        table = pc.read_csv(path, parse_options=pc.ParseOptions(delimiter=delimiter), convert_options=options)
    except (pa.ArrowException, UnicodeDecodeError, OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({' '.join(str(error).split())}): mend it.") from error
    if header and all(NUMERAL.fullmatch(name) for name in header) and not all(name.isdecimal() for name in header):
        raise InputError(f"The first line of {path} holds numbers ({', '.join(header[:5])}): it must name the columns.")
    if "" in header:
        place = header.index("")
        raise InputError(
            f"Column {place + 1} of {path} has no name: an index that was written with the table (to_csv(index=False) "
            "leaves it out) would be a feature. Remove the column, or name it."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or len(table.column_names) < 2 or table.num_rows == 0:
        what = f"names the column {twice[0]!r} twice" if twice else "needs rows, a label column and features"
        between = "tabs" if delimiter == "\t" else "commas"
        raise InputError(f"{path} {what}: its first line must name the columns, with {between} between them.")
    return table.rename_columns(header)


def _label_column(table: pa.Table, label: str | None, path: Path) -> str:
    columns = table.column_names
    if label is not None:
        if label not in columns:
            raise InputError(f"{path} has no column {label!r}, only {', '.join(columns)}: give --label COLUMN.")
        return label
    texts = [name for name in columns if pa.types.is_string(table.schema.field(name).type)]
    usual = [name for name in columns if name.lower() in _LABELS]
    for names in (usual, texts):
        if len(names) == 1:
            return str(names[0])
    raise InputError(f"{path} has the columns {', '.join(columns[:20])}: say which is the label, by --label COLUMN.")


def _numbers(table: pa.Table, column: str, path: Path) -> np.ndarray:
    _check_missing(table, column, path)
    values = table.column(column)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InputError(
            f"The column {column!r} of {path} is {kind} (first: {values[0].as_py()!r:.40}), not numbers: write it as "
            "numbers, or leave it out."
        )
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False).astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(numbers) <= LARGEST))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path} holds {numbers[row]} in row {row + 1}, column {column!r}, which float32 does not: fill it in, or "
            "remove it."
        )
    return numbers


def _check_missing(table: pa.Table, column: str, path: Path) -> None:
    missing = np.flatnonzero(table.column(column).is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        rows = ", ".join(str(row + 1) for row in missing[:5].tolist()) + ", ..." * (len(missing) > 5)
        raise InputError(
            f"{path} has {len(missing)} missing values in column {column!r} (row {rows}; the first row after the "
            "names is 1): fill them in, or remove these rows."
        )


def _labels(table: pa.Table, column: str, path: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return class numbers, and the classes' names: the distinct labels in order."""
    _check_missing(table, column, path)
    values = np.array(table.column(column).to_pylist())
    if values.dtype.kind == "f" and not ((values == np.round(values)) & (np.abs(values) < 2**53)).all():
        raise InputError(f"The labels of {path} (column {column!r}) are not whole (first: {values[0]}): name classes.")
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    named = named_labels(values)
    if named is not None:
        return named[0][0], named[1]
    kinds, codes = np.unique(values, return_inverse=True)
    if len(kinds) > max(100, len(values) // 2):
        raise InputError(f"The column {column!r} of {path} has {len(kinds)} different values: are these classes?")
    return torch.from_numpy(codes.astype(np.int64)), tuple(str(kind) for kind in kinds.tolist())


def _tell_ranges(split: ArraySplit, names: list[str], path: Path) -> None:
    """Warn where one eps cannot suit all features, with quantiles of the narrowest and the widest."""
    if (uneven := uneven_features(split)) is None:
        return
    ranges = []
    for feature in uneven:
        values = split.stored[:, feature.index].numpy()
        quantiles = ", ".join(f"{value:.4g}" for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))
        ranges.append(f"{names[feature.index]} ({quantiles})")
    warnings.warn(
        f"The features of {path} have very different ranges; quantiles at 0, 5, 50, 95 and 100%: "
        f"{' and '.join(ranges)}. One eps means little for both: {path}?scale=unit maps every feature to [0, 1].",
        stacklevel=3,
    )


TABLE: Form = Form(
    "a table",
    "a .csv file",
    fits=lambda place: Path(place).is_file() and Path(place).suffix in (".csv", ".tsv"),
    load=lambda place, name, choice: load_table(Path(place), name, choice.label, choice.scale),
    takes=("label", "scale"),
    remedy="it takes label=COLUMN and scale=unit, and all other columns are features",
)
