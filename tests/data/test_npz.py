import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from unperturbed.data.forms.npz import load_npz
from unperturbed.errors import InputError

X, Y = np.random.default_rng(0).random((6, 3)), np.array([0, 1, 2, 0, 1, 2])


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_training_and_test_arrays(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2]))
    assert data.name == "mine" and data.classes == ("0", "1", "2") and data.bounds == (0.0, 1.0)
    assert data.test is not None and data.test.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(data.train.inputs(torch.arange(6)), X.astype(np.float32))


@pytest.mark.parametrize("names", [("x", "y"), ("image", "label")])
def test_one_split(tmp_path: Path, names: tuple[str, str]) -> None:
    data = load_npz(saved(tmp_path, **{names[0]: X, names[1]: Y}))
    assert data.test is None and len(data.train) == 6


def test_bounds_of_each_feature(tmp_path: Path) -> None:
    data = load_npz(saved(tmp_path, x=X, y=Y, low=np.array([-1.0, 0, 0]), high=np.array(5)))
    assert isinstance(data.bounds, tuple)
    low, high = data.bounds
    assert isinstance(low, torch.Tensor) and low.tolist() == [-1, 0, 0] and low.dtype == torch.float32
    assert isinstance(high, torch.Tensor) and high.tolist() == [5, 5, 5]


def test_bounds_as_numbers(tmp_path: Path) -> None:
    assert load_npz(saved(tmp_path, x=X, y=Y, low=np.array(-1), high=np.array(2))).bounds == (-1.0, 2.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": X, "y": Y}, "holds data, y, but needs x_train and y_train"),
        ({"x": X, "y": Y[:5]}, "6 inputs and 5 labels"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"\(3,\) in training and \(2,\)"),
        ({"x": X, "y": Y, "low": np.zeros(3)}, "only one of low and high"),
        ({"x": X, "y": Y, "low": np.zeros(2), "high": np.ones(2)}, r"low of .* has shape \(2,\)"),
        ({"x": X, "y": Y, "low": np.ones(3), "high": np.array([1, 0, 1])}, "low exceeds high"),
        ({"x": X.astype(np.uint8), "y": Y, "low": np.array(0), "high": np.array(255)}, "high of .* is above 1"),
    ],
)
def test_what_is_missing_or_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_npz(saved(tmp_path, **arrays))


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "harm",)

    path = saved(tmp_path, x=np.array([Harm()], dtype=object), y=Y[:1])
    with pytest.raises(InputError, match="not loaded"):
        load_npz(path)
    assert not (tmp_path / "harm").exists()


def test_what_is_no_npz(tmp_path: Path) -> None:
    whole = saved(tmp_path, x=X, y=Y).read_bytes()
    for name, content in (("page", b"<html></html>"), ("cut", whole[: len(whole) // 2]), ("empty", b"")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.npz"):
            load_npz(path)
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(InputError, match="array.npz"):
        load_npz(tmp_path / "array.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_whatever_the_compression(method: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as file:
        for name, array in (("x.npy", X), ("y.npy", Y)):
            held = io.BytesIO()
            np.save(held, array)
            file.writestr(name, held.getvalue())
    assert len(load_npz(path).train) == len(Y)
    content = bytearray(path.read_bytes())
    content[60:68] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as .npz"):
        load_npz(path)


@pytest.mark.parametrize("limits", [("a", "b"), (0j, 1j)])
def test_bounds_that_are_no_real_numbers_are_refused(tmp_path: Path, limits: tuple[complex | str, ...]) -> None:
    x, y = np.random.default_rng(0).random((4, 3)), np.arange(4) % 2
    path = saved(tmp_path, x_train=x, y_train=y, low=np.array(limits[0]), high=np.array(limits[1]))
    with pytest.raises(InputError, match="must be real numbers"):
        load_npz(path)
