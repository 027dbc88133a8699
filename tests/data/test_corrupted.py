"""Sources of corrupted images: made from ids and a seed, or read from files in the form of CIFAR-10-C."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unperturbed.data.corrupted import generated, stored
from unperturbed.data.split import ArraySplit, Split, select
from unperturbed.errors import InputError

N = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(N) % 3


def split() -> Split:
    return ArraySplit(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(LABELS))


def write(folder: Path, labels: np.ndarray = LABELS, name: str = "fog") -> np.ndarray:
    """Write five severities of one corruption: the images, darker and darker."""
    folder.mkdir(exist_ok=True)
    images = np.concatenate([IMAGES // (severity + 1) for severity in range(1, 6)])
    np.save(folder / f"{name}.npy", images)
    np.save(folder / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    return images


def test_generated_images_depend_on_id_seed_and_severity_alone() -> None:
    source, x, ids = generated(split(), seed=3), split().x, torch.arange(N)
    together = source.inputs("gaussian_noise", 2, ids, x)
    assert (source.inputs("gaussian_noise", 2, ids[4:7], x[4:7]) == together[4:7]).all()
    assert together.shape == x.shape and together.dtype == torch.float32 and 0 <= together.min() <= together.max() <= 1
    for other in (
        generated(split(), seed=4).inputs("gaussian_noise", 2, ids, x),
        source.inputs("gaussian_noise", 3, ids, x),
        source.inputs("gaussian_noise", 2, ids + 1, x),
    ):
        assert (other != together).any()
    assert "frost is left out" in source.notes[0] and "32x32" in source.notes[1]
    assert source.identity != generated(split(), seed=4).identity


def test_stored_images_are_those_of_the_ids_and_the_severity(tmp_path: Path) -> None:
    images = write(tmp_path / "c")
    source = stored(tmp_path / "c", select(split(), torch.tensor([7, 2])))
    found = source.inputs("fog", 3, torch.tensor([7, 2]), split().x[[7, 2]])
    expected = torch.from_numpy(images[2 * N + np.array([7, 2])]).permute(0, 3, 1, 2) / 255
    assert source.names == ("fog",) and torch.equal(found, expected.float())
    write(tmp_path / "d")
    np.save(tmp_path / "d/fog.npy", images[::-1])
    assert stored(tmp_path / "d", split()).identity != source.identity


def test_folders_of_other_images_are_refused(tmp_path: Path) -> None:
    def refused(message: str, folder: Path, examples: Split | None = None) -> None:
        with pytest.raises(InputError, match=message):
            stored(folder, examples or split())

    refused("There is no folder", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refused("holds no images", tmp_path / "empty")
    write(tmp_path / "a", labels=(LABELS + (np.arange(N) == 5)) % 3)
    refused("differ from those of the data for 1 of 12 examples", tmp_path / "a")
    write(tmp_path / "b")
    np.save(tmp_path / "b/fog.npy", np.zeros((5 * N, 8, 8, 1), np.uint8))
    refused(r"uint8 of shape \(60, 8, 8, 1\), but 8-bit images of shape \(60, 8, 8, 3\)", tmp_path / "b")
    (tmp_path / "b/fog.npy").write_bytes(b"<html>")
    refused("cannot be read as .npy", tmp_path / "b")
    write(tmp_path / "c")
    twice = ArraySplit(torch.cat([split().x, split().x]), torch.from_numpy(np.tile(LABELS, 2)))
    refused("12 images of each severity, but the data have more", tmp_path / "c", twice)
    (tmp_path / "c/labels.npy").unlink()
    refused("holds no labels.npy", tmp_path / "c")


def test_vectors_are_refused() -> None:
    with pytest.raises(InputError, match=r"need images, but an example has shape \(4,\)"):
        generated(ArraySplit(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)), 0)
