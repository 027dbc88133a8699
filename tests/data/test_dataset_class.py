"""Classes of datasets by import path, with constructors like those of torchvision and MedMNIST."""

import sys
from pathlib import Path

import pytest
import torch

from unperturbed.data.sources import choices_of, keep_place, load_data
from unperturbed.errors import InputError

CODE = """
from pathlib import Path
import numpy as np
from PIL import Image


class Torchvision:
    classes = ["cat", "dog", "owl"]

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        assert not download and Path(root).is_dir()
        self.level = 10 if train else 200

    def __len__(self):
        return 6 if self.level == 10 else 3

    def __getitem__(self, i):
        return Image.fromarray(np.full((4, 4), self.level + i, np.uint8)), i % 3


class MedMNIST:
    def __init__(self, split, transform=None, download=False, as_rgb=False, root="somewhere", size=None):
        self.images = np.full((4 if split == "train" else 2, 4, 4, 3), 7 if split == "train" else 9, np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return Image.fromarray(self.images[i]), np.array([i % 2])


class Demanding:
    def __init__(self, root, version, split="train"):
        pass


class Rootless:
    def __init__(self, split="train"):
        pass


def function():
    return np.zeros((2, 3)), np.arange(2)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)


def test_both_splits_are_made_with_the_root_and_the_names_of_the_classes(tmp_path: Path) -> None:
    data = load_data("theirs:Torchvision?root=.")
    assert data.test is not None and (len(data.train), len(data.test)) == (6, 3)
    assert data.classes == ("cat", "dog", "owl") and data.train.shape == (1, 4, 4)
    assert torch.equal((data.test.x[:, 0, 0, 0] * 255).round(), torch.tensor([200.0, 201, 202]))
    assert data.place is not None and choices_of(data.place)["root"] == str(tmp_path)
    assert keep_place(data.place) == data.place and len(load_data(data.place).train) == 6


def test_a_class_may_know_its_folder() -> None:
    data = load_data("theirs:MedMNIST")
    assert data.test is not None and (len(data.train), len(data.test)) == (4, 2)
    assert data.classes == ("0", "1") and data.train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("theirs:Torchvision", r"needs the folder of its files: give theirs:Torchvision\?root=FOLDER"),
        ("theirs:Torchvision?root=absent", "calling theirs:Torchvision with train=True"),
        ("theirs:Demanding", "needs the arguments root, version"),
        ("theirs:Rootless?root=.", "has no argument root"),
        ("theirs:function?root=.", "which is no class of datasets with splits"),
        ("digits?root=.", "root=. .* does not apply to digits"),
    ],
)
def test_what_does_not_fit_is_refused(place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(place)
