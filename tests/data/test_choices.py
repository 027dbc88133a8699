"""Choices behind a place: those that a form of data takes work, and the others are refused, never dropped."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unperturbed.data.forms.base import NAMES
from unperturbed.data.names import DATASETS
from unperturbed.data.sources import keep_place, load_data, with_applicable
from unperturbed.errors import InputError

VALUES = {
    "config": "default",
    "image": "x_test",
    "label": "y_test",
    "resize": "4,4",
    "scale": "unit",
    "root": "pictures",
}
TAKEN = {
    "digits": (),
    "choices_functions:data": (),
    "arrays.npz": (),
    "table.csv": ("label", "scale"),
    "pictures": ("resize",),
    "parquet": ("config", "image", "label", "resize"),
    "mnist": ("config", "image", "label", "resize"),
    "owner/name": ("config", "image", "label", "resize"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("choices_functions.py").write_text("def data(): return [[0.1, 0.2]] * 4, [0, 1, 0, 1]\n")
    np.savez("arrays.npz", x=np.ones((4, 2)), y=np.arange(4), age=np.zeros(4))
    rows = "\n".join(f"{k},{k % 2},{k % 3}" for k in range(20))
    Path("table.csv").write_text(f"length,kind,y_test\n{rows}\n")
    for name in ("a", "b"):
        Path("pictures", name).mkdir(parents=True)
        for k in range(5):
            Image.new("L", (4, 4)).save(f"pictures/{name}/{k}.png")
    Path("parquet").mkdir()
    pq.write_table(pa.table({"x_test": [b"1"], "y_test": [0]}), "parquet/train.parquet")
    return tmp_path


REFUSED = [(place, name) for place, taken in TAKEN.items() for name in NAMES if name not in taken]


@pytest.mark.parametrize(("place", "name"), REFUSED)
def test_a_choice_that_does_not_apply_is_refused_by_its_option(folder: Path, place: str, name: str) -> None:
    """An .npz file with --label was trained on its `y`: another label than the one that was asked for."""
    with pytest.raises(InputError) as error:
        load_data(f"{place}?{name}={VALUES[name]}")
    text = str(error.value)
    option = f"--{name}" if name in ("label", "resize") else f"?{name}="
    assert option in text and f"{name}={VALUES[name]}" in text and place in text and "does not apply" in text


@pytest.mark.filterwarnings("ignore:.*held out as the test split")
def test_choices_that_apply_are_made(folder: Path) -> None:
    assert load_data("table.csv?label=y_test&scale=unit").classes == ("0", "1", "2")
    assert load_data("table.csv?label=kind").classes == ("0", "1")
    assert load_data("pictures?resize=2,3").train.shape == (1, 2, 3)


@pytest.mark.parametrize("place", TAKEN)
def test_a_choice_made_twice_or_without_a_value_is_refused(folder: Path, place: str) -> None:
    with pytest.raises(InputError, match="chooses label twice"):
        load_data(f"{place}?label=a&label=b")
    for query in ("label=", "label", "resize=%20"):
        with pytest.raises(InputError, match="has no value for"):
            load_data(f"{place}?{query}")


def test_options_of_the_data_hold_for_extra_data_where_these_take_them(folder: Path) -> None:
    """A column that `label` names in the data alone would be a feature of the extra data, and another one its label."""
    assert with_applicable("table.csv", label="kind", resize="4,4") == "table.csv?label=kind"
    assert with_applicable("table.csv?label=y_test", label="kind", resize=None) == "table.csv?label=y_test"
    assert with_applicable("arrays.npz", label="kind", resize="4,4") == "arrays.npz"


def test_a_name_with_choices_is_not_taken_for_the_folder_of_that_name(folder: Path) -> None:
    for name in DATASETS:
        Path(name).mkdir()
        assert keep_place(f"{name}?resize=8,8") == f"{name}?resize=8,8"
    assert keep_place("table.csv?label=kind") == f"{folder.resolve()}/table.csv?label=kind"


@pytest.mark.parametrize("name", ["x_test", "y_test"])
def test_half_a_test_split_is_not_dropped(folder: Path, name: str) -> None:
    np.savez("half.npz", x=np.ones((4, 2)), y=np.arange(4), **{name: np.ones(4, int)})
    with pytest.raises(InputError, match=f"holds {name} alone"):
        load_data("half.npz")
