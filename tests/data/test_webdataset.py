"""Shards of WebDataset: their keys, splits and braces, read at random positions, and files that are refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unperturbed.data.forms.webdataset import expanded
from unperturbed.data.sources import keep_place, load_data
from unperturbed.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def examples(numbers: range) -> dict[str, bytes]:
    """Return an image, a label and a caption for each number; labels are the number modulo 2."""
    files: dict[str, bytes] = {}
    for number in numbers:
        files[f"part/{number:04d}.cls"] = f"{number % 2}\n".encode()
        files[f"part/{number:04d}.caption.txt"] = b"a caption"
        files[f"part/{number:04d}.png"] = png(IMAGES[number])
    return files


def test_shards_with_braces_are_read_in_order_and_divided(tmp_path: Path) -> None:
    for shard, numbers in enumerate((range(0, 8), range(8, 13), range(13, 20))):
        write(tmp_path / f"{shard + 9:03d}.tar", examples(numbers))
    with pytest.warns(UserWarning, match="no test shards: 4 of its 20 images"):
        data = load_data(str(tmp_path / "{009..011}.tar"))
    assert (len(data.train), data.test and len(data.test), data.train.shape) == (16, 4, (3, 8, 8))
    assert data.classes == ("0", "1") and data.test is not None
    for split in (data.train, data.test):
        for position in torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist():
            x, y = split[position]
            number = int(split.names()[position])
            assert y == number % 2 and torch.equal(
                (x * 255).round().byte(), torch.tensor(IMAGES[number]).permute(2, 0, 1)
            )


def test_a_folder_has_training_and_test_shards(tmp_path: Path) -> None:
    write(tmp_path / "s/train-0.tar", examples(range(12)))
    write(tmp_path / "s/val-0.tar", examples(range(12, 18)))
    data = load_data(f"{tmp_path / 's'}?resize=4,4")
    assert data.test is not None and (len(data.train), len(data.test), data.test.shape) == (12, 6, (3, 4, 4))
    (tmp_path / "s/train-0.tar").unlink()
    with pytest.raises(InputError, match=r"no training shards, only val\*"):
        load_data(str(tmp_path / "s"))


def test_braces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-08", "a-09", "a-10", "b-08", "b-09", "b-10"):
        Path(f"{name}.tar").touch()
    assert [path.stem for path in expanded("{b,a}-{09..10}.tar")] == ["b-09", "b-10", "a-09", "a-10"]
    assert expanded("a-08.tar") == [Path("a-08.tar")]
    assert keep_place("{b,a}-{09..10}.tar") == str(tmp_path / "{b,a}-{09..10}.tar")
    for place, message in (
        ("a-{08..11}.tar", r"1 of the 4 shards .* \(first: a-11.tar\)"),
        ("a-{10..8}.tar", "no range"),
        ("a-{x}.tar", "no range"),
        ("{0..99999}-{0..99999}.tar", "10,000,000,000 files"),
        ("absent.tar", r"1 of the 1 shards of absent.tar do not exist"),
    ):
        with pytest.raises(InputError, match=message):
            expanded(place)


@pytest.mark.parametrize(
    ("files", "mode", "message"),
    [
        ({"a.png": png(IMAGES[0])}, "w", r"1 images .* have no label \(first: a\): add KEY.cls"),
        ({"a.png": png(IMAGES[0]), "a.cls": b"cat"}, "w", "is b'cat', but must be a class number"),
        ({"a.png": png(IMAGES[0]), "a.cls": b"1" * 1000}, "w", "must be a class number"),
        ({"a.png": png(IMAGES[0]), "a.jpg": b"", "a.cls": b"0"}, "w", "two images of the key a"),
        ({"a.txt": b"text"}, "w", "no images"),
        ({"a.png": png(IMAGES[0]), "a.cls": b"0"}, "w:gz", r"uncompressed tar file .*gunzip"),
    ],
)
def test_shards_of_another_form_are_refused(files: dict[str, bytes], mode: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "x.tar", files, mode)
    with pytest.raises(InputError, match=message):
        load_data(str(tmp_path / "x.tar"))


def test_links_in_a_shard_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", examples(range(10)))
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.warns(UserWarning, match="no test shards"):
        assert len(load_data(str(tmp_path / "x.tar")).train) == 8


def test_a_label_of_more_digits_than_a_number_holds_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "shard.tar", {"0.png": png(np.zeros((4, 4), np.uint8)), "0.cls": b"9" * 20})
    with pytest.raises(InputError, match="must be a class number"):
        load_data(str(tmp_path / "shard.tar"))
