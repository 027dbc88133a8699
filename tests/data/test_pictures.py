import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from unperturbed.data import pictures
from unperturbed.data.pictures import Picture, PictureSplit, picture_split
from unperturbed.data.split import ArraySplit, Split
from unperturbed.errors import InputError


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def random_images(n: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def split_of(encoded: Sequence[Picture]) -> Split:
    return picture_split(lambda ids: [encoded[i] for i in ids], torch.zeros(len(encoded), dtype=torch.int64), "here")


@pytest.mark.parametrize("limit", [2**30, 0])
def test_lossless_images_come_back_exactly(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", limit)
    images = random_images(9)
    split = split_of([png(Image.fromarray(image)) for image in images])
    assert isinstance(split, ArraySplit if limit else PictureSplit)
    assert split.shape == (3, 6, 6) and split.eight_bit
    ids = torch.tensor([8, 0, 3])
    assert torch.equal(split.inputs(ids), torch.from_numpy(images[ids].transpose(0, 3, 1, 2)).float() / 255)


def test_more_images_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_BLOCK", 4)
    images = random_images(10)
    split = split_of([png(Image.fromarray(image)) for image in images])
    assert torch.equal(split.inputs(torch.arange(10)) * 255, torch.from_numpy(images.transpose(0, 3, 1, 2)).float())


def test_width_and_height_keep_their_places() -> None:
    assert split_of([png(Image.new("RGB", (7, 5)))]).shape == (3, 5, 7)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_modes_give_one_or_three_channels(mode: str, channels: int) -> None:
    x = split_of([png(Image.new(mode, (2, 2), 1 if mode in ("1", "P") else None))]).inputs(torch.arange(1))
    assert x.shape == (1, channels, 2, 2)


def test_one_colour_image_among_grey_ones_gives_all_three_channels() -> None:
    split = split_of([png(Image.new("L", (2, 2), 51)), png(Image.new("RGB", (2, 2), (255, 0, 51)))])
    torch.testing.assert_close(split.inputs(torch.arange(2))[:, :, 0, 0], torch.tensor([[0.2] * 3, [1.0, 0.0, 0.2]]))


def test_different_sizes_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="image 0 is 2x2, image 1 is 3x2. Resize"):
        split_of([png(Image.new("L", (2, 2))), png(Image.new("L", (3, 2)))])


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(InputError, match="8 bits cannot hold"):
        split_of([png(Image.fromarray(np.zeros((2, 2), dtype=np.uint16)))])


def test_damaged_images_are_named() -> None:
    whole = png(Image.fromarray(random_images(1, 20)[0]))
    with pytest.raises(InputError, match="Image 1 of here cannot be read"):
        split_of([whole, b"no image"])
    with pytest.raises(InputError, match="Image 1 of here is damaged"):
        split_of([whole, whole[: len(whole) // 2]])


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        split_of([])
