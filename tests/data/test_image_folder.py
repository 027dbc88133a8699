from pathlib import Path

import pytest
import torch
from PIL import Image

from unperturbed.data.forms.image_folder import is_image_folder, load_images
from unperturbed.data.sources import load_data
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


def test_images_of_several_sizes_are_resized_and_the_first_odd_one_is_named(tmp_path: Path) -> None:
    for name, size in (("a/0.png", (8, 8)), ("a/1.png", (12, 6)), ("b/0.png", (4, 4))):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 51).save(tmp_path / "train" / name)
    with pytest.raises(InputError, match=r"--resize 8,8 .*a/1\.png"):
        load_data(str(tmp_path))
    x = load_data(f"{tmp_path}?resize=6,5").train.x
    assert x.shape == (3, 1, 6, 5) and bool((x == 0.2).all())
    for wrong in ("6", "0,5", "a,b", "99999,99999", "-1,5"):
        with pytest.raises(InputError, match="HEIGHT,WIDTH"):
            load_data(f"{tmp_path}?resize={wrong}")


def test_empty_class_folders_are_told(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "train/c", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        if name not in ("train/c", "test/b"):
            Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    with pytest.warns(UserWarning) as warned:
        load_data(str(tmp_path))
    texts = [str(each.message) for each in warned]
    assert any("train" in text and ": c." in text for text in texts)
    assert any("test" in text and ": b." in text for text in texts)


def test_links_to_nothing_are_refused(tmp_path: Path) -> None:
    """Images on a disk that is not mounted would otherwise be left out in silence."""
    fill(tmp_path / "train" / "cat", 2, 0)
    (tmp_path / "train/cat/more.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"1 images in .*cat are links to nothing \(first: more.png\)"):
        load_data(str(tmp_path))
