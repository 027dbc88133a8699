import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from unperturbed.data import pictures
from unperturbed.data.check import check
from unperturbed.data.pictures import KeptPictures, Picture, PictureSplit, picture_split
from unperturbed.data.split import Split, select
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
    assert type(split) is (KeptPictures if limit else PictureSplit)
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


def test_postscript_under_the_name_of_an_image_runs_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow starts Ghostscript on such a file, which executes it."""
    interpreter, trace = tmp_path / "gs", tmp_path / "EXECUTED"
    interpreter.write_text(f"#!/bin/sh\ntouch {trace}\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # which Pillow looks for once
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "EPS")
    (tmp_path / "image.png").write_bytes(file.getvalue())
    for picture in (file.getvalue(), tmp_path / "image.png"):
        with pytest.raises(InputError, match="cannot be read as PNG"):
            split_of([picture]).read(torch.arange(1))
    assert not trace.exists()
    with suppress(Exception):  # the trap works
        Image.open(io.BytesIO(file.getvalue())).load()
    assert trace.exists()


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(InputError, match="8 bits cannot hold"):
        split_of([png(Image.fromarray(np.zeros((2, 2), dtype=np.uint16)))])


def test_damaged_images_are_named() -> None:
    whole = png(Image.fromarray(random_images(1, 20)[0]))
    with pytest.raises(InputError, match="Image 1 of here cannot be read"):
        split_of([whole, b"no image"])
    half = split_of([whole, whole[: len(whole) // 2], whole])
    for look in (half.read, half.inputs, select(half, torch.tensor([0, 1])).read):
        with pytest.raises(InputError, match="Image 1 of here is damaged"):
            look(torch.arange(2))
    with pytest.raises(InputError, match="Image 1 of here is damaged"):
        check(half, (0.0, 1.0), 1)
    check(select(half, torch.tensor([0, 2])), (0.0, 1.0), 1)
    with pytest.raises(InputError, match="Image 0 of here"):
        split_of([whole[:26]]).read(torch.arange(1))


def test_an_image_is_decoded_once_and_not_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(9)
    split = split_of([png(Image.fromarray(image)) for image in images])
    seen, run = list[int](), PictureSplit.decoded

    def decoded(self: PictureSplit, ids: Sequence[int]) -> torch.Tensor:
        seen.extend(ids)
        return run(self, ids)

    monkeypatch.setattr(PictureSplit, "decoded", decoded)
    for ids in ([3, 1], [1, 1, 8], [], [3, 8]):
        x = split.inputs(torch.tensor(ids, dtype=torch.int64))
        assert torch.equal(x, torch.from_numpy(images[ids].transpose(0, 3, 1, 2)).float() / 255)
    assert sorted(seen) == [1, 3, 8]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_header_says_what_pillow_says(mode: str) -> None:
    """Also where it is read without Pillow."""
    encoded = png(Image.new(mode, (7, 5)))
    with Image.open(io.BytesIO(encoded)) as image:
        assert pictures._header(encoded, 0, "here") == (image.size, image.mode) == ((7, 5), image.mode)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        split_of([])
