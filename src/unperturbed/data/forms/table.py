"""Tables of features with a label column: CSV files."""

import csv
import warnings
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
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
    """Return a CSV file (its first line names the columns) as Data; a fixed 20% of every class are the test split.

    Labels may be texts or numbers; their distinct values are the classes, in order. The text "NA" is a class, with a
    warning, since it may be a missing label. Without `label`, a warning says which column holds the labels. All other
    columns are features and must be numbers. Lines before the names that begin with # are left out. The bounds are the
    lowest and highest value of each feature; with `scale="unit"` features are mapped to [0, 1] by them. A warning says
    so, and another one if the ranges of features differ widely.

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
    examples = ArraySplit(torch.from_numpy(x.astype(np.float32)), labels)
    _tell_ranges(examples, names, path)
    train, test = hold_out(labels, HELD_OUT)
    if len(test) == 0 or len(train) == 0:
        raise InputError(f"{path} has too few examples of a class to hold out {HELD_OUT:.0%}: give more, or an .npz.")
    if len(classes) < 2:
        raise InputError(f"All labels of {path} (column {column!r}) are {classes[0]}: there is nothing to tell apart.")
    guessed = f"The labels are the column {column!r}; --label COLUMN takes another. " if label is None else ""
    warnings.warn(
        f"{guessed}{len(test)} of the {len(examples)} rows of {path} (20% of every class, always the same) are held "
        "out as the test split.",
        stacklevel=2,
    )
    return Data(name, select(examples, train), select(examples, test), classes, bounds, features=tuple(names))


def _read(path: Path) -> pa.Table:
    check_memory(8 * path.stat().st_size, f"The table {path}", "give fewer rows")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            comments, header = _header(csv.reader(file, delimiter=delimiter))
        _check_delimiter(header, delimiter, path)
        table = pc.read_csv(
            path,
            read_options=pc.ReadOptions(skip_rows=comments),
            parse_options=pc.ParseOptions(delimiter=delimiter),
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error.reason} {error.start}): save it as UTF-8.") from error
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({' '.join(str(error).split())}): mend it.") from error
    if len(header) == table.num_columns and _holds_values(header, table):
        first = ", ".join(header[:5])
        raise InputError(
            f"The first line of {path} holds values ({first:.80}): add a line before it that names the columns."
        )
    if len(header) != table.num_columns:
        raise InputError(
            f"The first line of {path} names {len(header)} columns, but its rows have {table.num_columns}: begin the "
            "file with the line of names, without empty lines before it."
        )
    if "" in header:
        column = header.index("")
        raise InputError(
            f"Column {column + 1} of {path} has no name: an index that was written with the table (to_csv(index=False) "
            "leaves it out) would be a feature. Remove the column, or name it."
        )
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice or len(table.column_names) < 2 or table.num_rows == 0:
        problem = f"names the column {twice[0]!r} twice" if twice else "needs rows, a label column and features"
        between = "tabs" if delimiter == "\t" else "commas"
        raise InputError(f"{path} {problem}: its first line must name the columns, with {between} between them.")
    return table.rename_columns(header)


def _header(lines: Iterator[list[str]]) -> tuple[int, list[str]]:
    """Return the number of lines before the names that begin with #, and the names.

    The last of these lines holds the names if it has as many fields as the line below it.
    """
    comments, last = 0, list[str]()
    for line in lines:
        if not (line and line[0].startswith("#")):
            if len(last) == len(line) > 1:
                comments, line = comments - 1, last
            return comments, [name.strip() for name in line]
        comments, last = comments + 1, line
    return comments, []


def _check_delimiter(header: list[str], delimiter: str, path: Path) -> None:
    if len(header) != 1:
        return
    for other, noun in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
        if other != delimiter and other in header[0]:
            wanted = "tabs" if delimiter == "\t" else "commas"
            point = ", and numbers with decimal points" if other == ";" else ""
            tabs = ", or call it .tsv" if other == "\t" else ""
            raise InputError(
                f"{path} has {noun} between its columns: write it with {wanted} between them{point}{tabs}."
            )


def _holds_values(header: list[str], table: pa.Table) -> bool:
    """Tell whether the first line is a row: numbers above numbers, or a text that its column holds again.

    Whole numbers alone may be names, as pandas writes them.
    """
    texts = [pa.types.is_string(field.type) for field in table.schema]
    numbers = [name for name, is_text in zip(header, texts, strict=True) if not is_text]
    if not all(NUMERAL.fullmatch(name) for name in numbers):
        return False
    again = any(
        is_text and name in table.column(k).unique().to_pylist()
        for k, (name, is_text) in enumerate(zip(header, texts, strict=True))
    )
    return again or any(not name.isdecimal() for name in numbers)


def _label_column(table: pa.Table, label: str | None, path: Path) -> str:
    columns = table.column_names
    if label is not None:
        if label not in columns:
            near = f" Did you mean {close[0]!r}?" if (close := get_close_matches(label, columns, 1)) else ""
            there = f"{', '.join(columns[:20])}{', ...' * (len(columns) > 20)}"
            raise InputError(f"{path} has no column {label!r}, only {there}: give --label COLUMN.{near}")
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
        texts = [str(value) for value in values.to_pylist()]
        row = next((k for k, text in enumerate(texts) if not NUMERAL.fullmatch(text.strip())), 0)
        raise InputError(
            f"The column {column!r} of {path} is {kind} (row {row + 1}: {texts[row]!r:.40}), not numbers: write it as "
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
    values = table.column(column)
    if pa.types.is_string(values.type):  # an empty text, since a text such as NA may be a name
        values = pa.compute.if_else(pa.compute.equal(pa.compute.utf8_trim_whitespace(values), ""), None, values)
    missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        rows = ", ".join(str(row + 1) for row in missing[:5].tolist()) + ", ..." * (len(missing) > 5)
        raise InputError(
            f"{path} has {len(missing)} missing values in column {column!r} (row {rows}; the first row after the "
            "names is 1): fill them in, or remove these rows."
        )


def _labels(table: pa.Table, column: str, path: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return class numbers, and the classes' names: the distinct labels in order."""
    _check_missing(table, column, path)
    listed = table.column(column).to_pylist()
    if isinstance(listed[0], str):
        listed = [label.strip() for label in listed]  # "a, b" leaves spaces, which make no other class
        if (absent := listed.count("NA")) > 0:
            warnings.warn(
                f"{absent} labels of {path} are NA, which is a class here: remove these rows if NA means no label.",
                stacklevel=3,
            )
    values = np.array(listed, dtype=object if isinstance(listed[0], str) else None)  # as texts, all as long as one
    if values.dtype.kind == "f" and not ((values == np.round(values)) & (np.abs(values) < 2**53)).all():
        raise InputError(f"The labels of {path} (column {column!r}) are not whole (first: {values[0]}): name classes.")
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    texts = named_labels(values)
    if texts is not None:
        return texts[0][0], texts[1]
    kinds, codes = np.unique(values, return_inverse=True)
    if len(kinds) > max(100, len(values) // 2):
        raise InputError(f"The column {column!r} of {path} has {len(kinds)} different values: are these classes?")
    return torch.from_numpy(codes.astype(np.int64)), tuple(str(kind) for kind in kinds.tolist())


def _tell_ranges(split: ArraySplit, names: list[str], path: Path) -> None:
    """Warn if one eps cannot suit all features, with quantiles of the narrowest and the widest."""
    if (uneven := uneven_features(split)) is None:
        return
    ranges = []
    for feature in uneven:
        values = split.stored[:, feature.index].numpy()
        quantiles = ", ".join(f"{value:.4g}" for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))
        ranges.append(f"{names[feature.index]} ({quantiles})")
    warnings.warn(
        f"The features of {path} have very different ranges; quantiles at 0, 5, 50, 95 and 100%: "
        f"{' and '.join(ranges)}. One eps means little for both: {path}?scale=unit maps every feature to [0, 1], and "
        "--feature-eps gives each its eps.",
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
