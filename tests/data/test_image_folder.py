from pathlib import Path

import pytest
import torch
from PIL import Image

from unperturbed.data.image_folder import is_image_folder, load_images
from unperturbed.errors import InputError


def fill(folder: Path, n: int, grey: int) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        Image.new("L", (4, 3), grey + i).save(folder / f"{i:02}.png")


def test_train_and_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "dog", 3, 100)
    fill(tmp_path / "train" / "cat", 2, 50)
    fill(tmp_path / "test" / "dog", 1, 200)
    (tmp_path / "train" / "notes.txt").touch()
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    assert is_image_folder(tmp_path)
    data = load_images(tmp_path, "pets")
    assert data.name == "pets" and data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1] and data.train.shape == (1, 3, 4)
    assert (data.train.inputs(torch.arange(5))[:, 0, 0, 0] * 255).tolist() == [50, 51, 100, 101, 102]
    assert data.test is not None and data.test.labels.tolist() == [1]


def test_a_folder_without_test_folder_has_no_test_split(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "cat", 2, 50)
    assert load_images(tmp_path, "pets").test is None


def test_class_folders_alone_hold_out_a_fifth_and_say_so(tmp_path: Path) -> None:
    fill(tmp_path / "cat", 10, 0)
    fill(tmp_path / "dog", 20, 100)
    assert is_image_folder(tmp_path)
    with pytest.warns(UserWarning, match="6 of its 30 images"):
        data = load_images(tmp_path, "pets")
    assert data.test is not None
    assert torch.bincount(data.test.labels).tolist() == [2, 4]
    seen = [data.train.inputs(torch.arange(24)), data.test.inputs(torch.arange(6))]
    assert len(torch.cat(seen)[:, 0, 0, 0].unique()) == 30


def test_classes_that_are_not_trained_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "cat", 1, 0)
    fill(tmp_path / "val" / "bird", 1, 0)
    with pytest.raises(InputError, match="not in the training folder: bird"):
        load_images(tmp_path, "pets")


def test_test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "cat", 1, 0)
    fill(tmp_path / "test" / "cat", 1, 0)
    Image.new("L", (9, 9)).save(tmp_path / "test" / "cat" / "00.png")
    with pytest.raises(InputError, match=r"\(1, 3, 4\) in training and \(1, 9, 9\)"):
        load_images(tmp_path, "pets")


def test_other_folders_are_no_image_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.txt").touch()
    assert not is_image_folder(tmp_path)
    assert not is_image_folder(tmp_path / "sub")
