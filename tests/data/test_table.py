"""Tables: labels by name, features by number, and what cannot be used named by row and column."""

import re
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from unperturbed.data.sources import load_data, with_choices
from unperturbed.errors import InputError


def table(folder: Path, *lines: str, rows: int = 10) -> str:
    path = folder / "flowers.csv"
    body = lines or tuple(f"{k}.5,{1000 * k},{('iris', 'rose')[k % 2]}" for k in range(rows))
    path.write_text("\n".join(("length,weight,kind", *body)) + "\n")
    return str(path)


def load(spec: str):  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_data(spec)


def warned(spec: str) -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load_data(spec)
    return [str(warning.message) for warning in seen]


def test_labels_that_are_texts_name_the_classes(tmp_path: Path) -> None:
    for spec in (table(tmp_path), table(tmp_path) + "?label=kind"):
        data = load(spec)
        assert data.classes == ("iris", "rose") and (len(data.train), len(data.test)) == (8, 2)
        x = torch.cat([data.train.x, data.test.x])
        assert sorted(x[:, 1].tolist()) == [1000.0 * k for k in range(10)]
        even = (x[:, 1] / 1000).long() % 2
        assert torch.equal(torch.cat([data.train.y, data.test.y]), even)


def test_bounds_are_those_of_each_feature_or_of_the_unit_box(tmp_path: Path) -> None:
    low, high = load(table(tmp_path)).bounds
    assert low.tolist() == [0.5, 0] and high.tolist() == [9.5, 9000]
    data = load(table(tmp_path) + "?scale=unit")
    assert data.bounds == (0.0, 1.0)
    x = torch.cat([data.train.x, data.test.x])
    torch.testing.assert_close(x.sort(0).values, (torch.arange(10) / 9)[:, None].expand(10, 2))


def test_features_of_very_different_ranges_are_told_with_quantiles(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load_data(table(tmp_path))
    pattern = r"length \(0\.5.*weight \(0, .*9000\).*scale=unit"
    assert any(re.search(pattern, str(each.message)) for each in seen)


def test_numbers_as_labels_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [f"{k},{k},{(10, 3, 7)[k % 3]}" for k in range(30)]
    assert load(table(tmp_path, *rows) + "?label=kind").classes == ("3", "7", "10")


@pytest.mark.parametrize(
    ("lines", "query", "parts"),
    [
        (("1,,iris", "2,3,rose"), "", ["1 missing", "'weight'", "row 1"]),
        (("1,2,iris", "2,3,"), "?label=kind", ["'kind'", "row 2"]),
        (("1,2,iris", "2,nan,rose"), "", ["'weight'", "row 2"]),
        (("1,inf,iris", "2,3,rose"), "", ["inf", "row 1", "'weight'"]),
        (("2,3,rose", "1,heavy,iris"), "?label=kind", ["'weight'", "row 2", "heavy"]),
        (("1,2,iris",), "?label=sort", ["'sort'", "length, weight, kind"]),
        (("1,2,iris",), "?label=kin", ["'kin'", "Did you mean 'kind'?"]),
        ((f"1,2,{'z' * 501}", "2,3,rose"), "", ["501 characters"]),
        (("1,2,0.5", "1,2,0.7"), "?label=kind", ["not whole"]),
        (("1,2,3",), "", ["--label COLUMN"]),
        (("1,2",), "", ["cannot be read as CSV"]),
        (("1,2,iris",), "", ["too few"]),
        (("1,2,iris",), "?scale=big", ["'big'"]),
        (("1,2,iris",), "?resize=3,3", ["resize"]),
        (("1,2,iris",) * 10, "", ["iris", "nothing to tell apart"]),
        (("1,1e300,iris", "2,3,rose"), "", ["1e+300", "row 1", "'weight'", "float32"]),
        (("1,2,1e300", "1,2,2e300"), "?label=kind", ["not whole"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, lines: tuple[str, ...], query: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load(table(tmp_path, *lines) + query)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (",weight,kind", "Column 1 of .* has no name: an index"),
        ("0.5,2,1e3", "first line of .* holds values"),
        ("0.5,2,a", "first line of .* holds values"),
        ("0,2,a", "first line of .* holds values"),
        ("length;weight;kind", "has semicolons between its columns: write it with commas"),
        ("length|weight|kind", "has bars between its columns: write it with commas"),
        ("length, length ,kind", "'length' twice"),
    ],
)
def test_a_first_line_that_names_no_columns_is_refused(tmp_path: Path, header: str, message: str) -> None:
    """An index that pandas wrote would be a feature, and a row in the place of the names would be lost."""
    path = tmp_path / "table.csv"
    path.write_text(
        "\n".join(
            [header, *(f"{k},{k},{'ab'[k % 2]}".replace(",", header[6:7] if ";" in header else ",") for k in range(10))]
        )
    )
    with pytest.raises(InputError, match=message):
        load(str(path))


def test_names_of_columns_are_read_without_spaces(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["0, 1, kind", *(f"{k}, {k}, {'ab'[k % 2]}" for k in range(10))]))
    assert load(f"{path}?label=kind").features == ("0", "1")


def test_damaged_tables_end_in_words(tmp_path: Path) -> None:
    whole, rng = Path(table(tmp_path, rows=40)).read_bytes(), np.random.default_rng(0)
    for number in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / f"{number}.csv"
        path.write_bytes(bytes(damaged))
        try:
            load(str(path))
        except InputError as error:
            assert path.name in str(error)


def test_choices_are_put_behind_the_place_and_replace_others() -> None:
    assert with_choices("mnist", resize="8,8") == "mnist?resize=8,8"
    assert with_choices("a.csv?label=x&scale=unit", label="y") == "a.csv?label=y&scale=unit"
    assert with_choices("digits", label=None) == "digits"


def test_one_long_label_does_not_make_all_others_as_long(tmp_path: Path) -> None:
    """NumPy gives every text of an array the length of the longest: 40 GB here."""
    path = tmp_path / "table.csv"
    path.write_text("a,label\n" + "1,x\n" * 20_000 + f"1,{'z' * 500_000}\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="500,000 characters"):
        load(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_text_of_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes("a,label\n1,café\n2,thé\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        load(str(tmp_path / "table.csv"))


def test_an_empty_line_before_the_names_is_told(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\na,b,label\n" + "".join(f"{i},{2 * i},{'xy'[i % 2]}\n" for i in range(20)))
    with pytest.raises(InputError, match="without empty lines before it"):
        load(str(path))


def test_spaces_around_a_label_make_no_other_class(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,label\n" + "".join(f"{i}, {'xy'[i % 2]}{' ' * (i % 3)}\n" for i in range(20)))
    assert load(str(path)).classes == ("x", "y")


def test_the_label_column_that_was_taken_is_named(tmp_path: Path) -> None:
    text = "The labels are the column 'kind'; --label COLUMN takes another."
    assert any(text in line for line in warned(table(tmp_path)))
    assert not any("The labels are" in line for line in warned(table(tmp_path) + "?label=kind")), "it was chosen"


@pytest.mark.parametrize("before", ["# made by a program\n", "# made, by, a program\n# of 2026\n", "# a\n#\n", ""])
def test_comments_before_the_names_are_left_out(before: str, tmp_path: Path) -> None:
    path = Path(table(tmp_path))
    path.write_text(before + path.read_text())
    data = load(str(path))
    assert data.features == ("length", "weight") and len(data.train) + len(data.test) == 10


def test_names_that_begin_with_a_sign_of_comments_are_names(tmp_path: Path) -> None:
    path = Path(table(tmp_path))
    path.write_text("# a comment\n#" + path.read_text())
    data = load(str(path))
    assert data.features == ("#length", "weight") and len(data.train) + len(data.test) == 10


def test_a_class_may_be_called_na(tmp_path: Path) -> None:
    rows = [f"{k}.5,{k},{('EU', 'NA', 'nan')[k % 3]}" for k in range(30)]
    path = table(tmp_path, *rows)
    assert load(path).classes == ("EU", "NA", "nan")
    assert any(re.search("10 labels of .* are NA, which is a class here", line) for line in warned(path))
    with pytest.raises(InputError, match=r"3 missing values in column 'kind' \(row 1, 2, 3"):
        load(table(tmp_path, *[f"{k}.5,{k},{'' if k < 3 else ('NA', 'EU')[k % 2]}" for k in range(30)]))
    with pytest.raises(InputError, match=r"1 missing values in column 'weight' \(row 5"):
        load(table(tmp_path, *[f"{k}.5,{'NA' if k == 4 else k},{'ab'[k % 2]}" for k in range(30)]))
