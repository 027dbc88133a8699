import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unperturbed.data import pictures
from unperturbed.data.forms import parquet
from unperturbed.data.forms.base import Choice
from unperturbed.data.forms.parquet import load_parquet
from unperturbed.data.pictures import PictureSplit
from unperturbed.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 5, 4, 3), dtype=np.uint8)
CLASS = {"_type": "ClassLabel", "names": ["cat", "dog"]}
IMAGE = {"_type": "Image"}


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def write_pets(path: Path, ids: range, label: int | None = None) -> None:
    labels = [i % 2 if label is None else label for i in ids]
    columns = {"number": list(ids), "what": labels, "pet": [encoded(PIXELS[i]) for i in ids]}
    write(path, columns, {"number": {"dtype": "int64", "_type": "Value"}, "what": CLASS, "pet": IMAGE})


def load(folder: Path, **choice: str) -> Any:
    return load_parquet(folder, "pets", Choice(**choice))


def expected(ids: list[int]) -> torch.Tensor:
    return torch.from_numpy(PIXELS[ids].transpose(0, 3, 1, 2)).float() / 255


def test_columns_are_found_by_their_features(tmp_path: Path) -> None:
    write_pets(tmp_path / "train.parquet", range(6))
    write_pets(tmp_path / "test.parquet", range(6, 8))
    data = load(tmp_path)
    assert data.name == "pets" and data.classes == ("cat", "dog") and data.bounds == (0.0, 1.0)
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(data.train.inputs(torch.tensor([5, 0])), expected([5, 0]))
    assert torch.equal(data.test.inputs(torch.arange(2)), expected([6, 7]))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train.parquet"], "test.parquet"),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "test-00000-of-00001.parquet"),
        (["data/train-00000-of-00001.parquet"], "data/validation-00000-of-00001.parquet"),
        (["plain_text/train_0.parquet", "plain_text/train_1.parquet"], "plain_text/val_0.parquet"),
        (["default/train/0000.parquet", "default/train/0001.parquet"], "default/test/0000.parquet"),
        (["train/a.parquet"], "test/a.parquet"),
    ],
)
def test_layouts(tmp_path: Path, train: list[str], test: str) -> None:
    share = 6 // len(train)
    for k, name in enumerate(train):
        write_pets(tmp_path / name, range(k * share, (k + 1) * share))
    write_pets(tmp_path / test, range(6, 8))
    data = load(tmp_path)
    assert torch.equal(data.train.inputs(torch.arange(6)), expected(list(range(6))))
    assert torch.equal(data.test.inputs(torch.arange(2)), expected([6, 7]))


def test_files_without_a_split_in_their_names_train(tmp_path: Path) -> None:
    write_pets(tmp_path / "pets.parquet", range(6))
    assert len(load(tmp_path).train) == 6 and load(tmp_path).test is None


def test_a_test_split_with_hidden_labels_gives_way_to_the_validation_split(tmp_path: Path) -> None:
    write_pets(tmp_path / "train.parquet", range(4))
    write_pets(tmp_path / "validation.parquet", range(4, 6))
    write_pets(tmp_path / "test.parquet", range(6, 8), label=-1)
    assert torch.equal(load(tmp_path).test.inputs(torch.arange(2)), expected([4, 5]))


def test_a_large_dataset_is_memory_mapped_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", 0)
    write_pets(tmp_path / "pets" / "train-00000-of-00002.parquet", range(5))
    write_pets(tmp_path / "pets" / "train-00001-of-00002.parquet", range(5, 8))
    train = load(tmp_path / "pets").train
    assert type(train) is PictureSplit
    assert torch.equal(train.inputs(torch.tensor([6, 1, 6])), expected([6, 1, 6]))
    assert {p.name for p in (tmp_path / "pets").iterdir()} == {f"train-0000{i}-of-00002.parquet" for i in (0, 1)}


def test_files_without_features_are_read_by_what_they_hold(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", {"a": [encoded(p) for p in PIXELS], "b": [0, 3] * 4, "c": ["text"] * 8})
    data = load(tmp_path)
    assert data.classes == ("0", "1", "2", "3") and data.train.shape == (3, 5, 4)
    write(tmp_path / "train.parquet", {"a": [encoded(p)["bytes"] for p in PIXELS], "b": [0, 3] * 4})
    assert torch.equal(load(tmp_path).train.inputs(torch.arange(8)), expected(list(range(8))))


def test_ambiguous_columns_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    columns = {"pet": [encoded(p) for p in PIXELS], "fine": list(range(8)), "coarse": [0, 1] * 4}
    fine = {"_type": "ClassLabel", "names": [str(i) for i in range(8)]}
    write(tmp_path / "train.parquet", columns, {"pet": IMAGE, "fine": fine, "coarse": CLASS})
    with pytest.raises(InputError, match=r"could be the label: fine, coarse.*\?label=NAME"):
        load(tmp_path)
    assert load(tmp_path, label="coarse").classes == ("cat", "dog")
    assert load(tmp_path, label="fine").train.labels.tolist() == list(range(8))
    with pytest.raises(InputError, match="no column 'coarce', only pet, fine, coarse"):
        load(tmp_path, label="coarce")


def test_several_configurations_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    write_pets(tmp_path / "small" / "train.parquet", range(2))
    write_pets(tmp_path / "large" / "train.parquet", range(8))
    with pytest.raises(InputError, match=r"several configurations: large, small"):
        load(tmp_path)
    assert len(load(tmp_path, config="small").train) == 2
    with pytest.raises(InputError, match="no configuration 'tiny', only large, small"):
        load(tmp_path, config="tiny")


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    write_pets(tmp_path / "train-00000-of-00002.parquet", range(5))
    with pytest.raises(InputError, match="1 of the 2 files"):
        load(tmp_path)


def test_no_training_files(tmp_path: Path) -> None:
    write_pets(tmp_path / "test.parquet", range(5))
    with pytest.raises(InputError, match="no training files, only test"):
        load(tmp_path)


PETS = [encoded(p) for p in PIXELS[:2]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"], "label": [0, 1]}, "no column of images"),
        ({"pet": PETS, "label": [0.0, 1.0]}, "no column of integer labels"),
        ({"pet": PETS, "label": [0, None]}, "1 labels of the train split of pets"),
        ({"pet": [PETS[0], None], "label": [0, 1]}, "1 images of the train split of pets"),
        ({"pet": PETS, "label": [-1, -1]}, "hidden"),
    ],
)
def test_what_cannot_train(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write(tmp_path / "train.parquet", columns)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    write_pets(tmp_path / "train.parquet", range(8))
    whole = (tmp_path / "train.parquet").read_bytes()
    for content in (b"<html></html>", whole[: len(whole) // 2], b""):
        (tmp_path / "train.parquet").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as Parquet"):
            load(tmp_path)


def test_test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_pets(tmp_path / "train.parquet", range(8))
    write(tmp_path / "test.parquet", {"pet": [encoded(PIXELS[0][:2])], "what": [0]}, {"pet": IMAGE, "what": CLASS})
    with pytest.raises(InputError, match=r"\(3, 5, 4\) in training and \(3, 2, 4\)"):
        load(tmp_path)


def test_what_the_hubs_own_library_writes_is_read(tmp_path: Path) -> None:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [Image.fromarray(p) for p in PIXELS], "label": [0, 1] * 4}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert torch.equal(data.train.inputs(torch.arange(8)), expected(list(range(8))))


@pytest.mark.parametrize("text", ["no JSON", "[" * 100_000, b"\xff"])
def test_metadata_that_is_no_json_is_named_with_its_file(tmp_path: Path, text: str | bytes) -> None:
    write_pets(path := tmp_path / "train.parquet", range(6))
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": text}), path)
    with pytest.raises(InputError, match=r"huggingface.*train\.parquet"):
        load(tmp_path)


@pytest.mark.parametrize("value", [[1], 3, None, {"info": [1]}, {"info": {"features": ["pet"]}}])
def test_metadata_of_another_form_declares_nothing(tmp_path: Path, value: Any) -> None:
    write(path := tmp_path / "train.parquet", {"what": [0, 1], "pet": [encoded(PIXELS[i]) for i in range(2)]})
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps(value)}), path)
    assert load(tmp_path).train.labels.tolist() == [0, 1]


def test_class_names_that_are_no_list_are_not_taken_for_names(tmp_path: Path) -> None:
    columns = {"what": [0, 1], "pet": [encoded(PIXELS[i]) for i in range(2)]}
    write(tmp_path / "train.parquet", columns, {"what": {"_type": "ClassLabel", "names": "ab"}, "pet": IMAGE})
    assert load(tmp_path).classes == ("0", "1")


@pytest.mark.parametrize("name", ["Linf:0.3", "file:", "s3::a", "a%20b", "a[1]*"])
def test_a_folder_whose_name_looks_like_an_address_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_pets(tmp_path / "train.parquet", range(6))
    (tmp_path / name).mkdir()
    (tmp_path / "train.parquet").rename(tmp_path / name / "train.parquet")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load(Path(name)).train.inputs(torch.tensor([5, 0])), expected([5, 0]))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", 0)
    if name in ("s3::a", "a[1]*"):
        with pytest.raises(InputError, match="rename"):
            load(Path(name))
    else:
        assert torch.equal(load(Path(name)).train.inputs(torch.tensor([5, 0])), expected([5, 0]))


def test_images_in_several_groups_of_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_pets(path, range(8))
    whole = load(tmp_path).train.inputs(torch.arange(8))
    pq.write_table(pq.read_table(path), path, row_group_size=3)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert torch.equal(load(tmp_path).train.inputs(torch.arange(8)), whole)
    assert torch.equal(whole, expected([*range(8)]))


@pytest.mark.long
@pytest.mark.slow
def test_rows_that_repeat_a_large_image_hold_it_once(tmp_path: Path) -> None:
    """A small file repeats an image of 4 MB a million times: 4 TB, were they written out."""
    image = encoded(PIXELS[0])["bytes"] + bytes(4_000_000)
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, dtype=np.int32)), pa.array([image]))
    table = pa.table({"image": repeated, "label": np.zeros(1_000_000, dtype=np.int8)})
    for name, kept in (("plain", False), ("typed", True)):
        path = tmp_path / name / "train.parquet"
        path.parent.mkdir()
        pq.write_table(table, path, store_schema=kept)
        assert path.stat().st_size < 1_000_000
        held = parquet._pictures([path], "image", "here")
        assert held([0])[0] is held([999_999])[0] and held([5]) == [image]


def test_more_rows_than_memory_holds_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", {"image": [encoded(PIXELS[0])["bytes"]] * 1000, "label": [0] * 1000})
    load(tmp_path)
    monkeypatch.setattr("unperturbed.reading.memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"column label .*1,000 rows\) would take"):
        load(tmp_path)


def test_splits_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    image = {"image": [encoded(np.full((4, 4), 9, np.uint8))] * 2, "label": pa.array([0, 1])}
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        write(tmp_path / f"{split}.parquet", image, features)
    with pytest.raises(InputError, match=r"cat, dog \(2\) in training and dog, cat \(2\) in the test split"):
        load(tmp_path)


@pytest.mark.parametrize(("names", "message"), [(["dog", "cat"], r"dog, cat \(2\) in"), (None, "numbers in")])
def test_files_of_a_split_that_number_their_classes_differently_are_refused(
    tmp_path: Path, names: list[str] | None, message: str
) -> None:
    image = {"image": [encoded(np.full((4, 4), 9, np.uint8))] * 2, "label": pa.array([0, 1])}
    for number, of_file in enumerate((["cat", "dog"], names)):
        label = {} if of_file is None else {"label": {"_type": "ClassLabel", "names": of_file}}
        write(tmp_path / f"train-0000{number}-of-00002.parquet", image, {"image": {"_type": "Image"}, **label})
    with pytest.raises(InputError, match=rf"cat, dog \(2\) in .* and {message}"):
        load(tmp_path)
