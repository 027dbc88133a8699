import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unperturbed.errors import InputError, RunError
from unperturbed.runs import BEST, CONFIG, MODEL, write_yaml
from unperturbed.runs.tensors import NOTE, DamagedError, damage_of_zip, read_tensors, write_tensors
from unperturbed.runs.verify import digest, read_sealed, write_sealed
from unperturbed.runs.weights import check_weights, note_of
from unperturbed.training import checkpoint
from unperturbed.weights.files import load_weights, save_weights

CONFIGURATION = {
    "unperturbed": "0.1",
    "threat": "Linf:0.1",
    "data": "digits",
    "method": {"class_path": "at"},
    "recipe": {"epochs": 2, "lr": 0.1, "checkpoint_minutes": 5.0},
}


def flipped(path: Path, place: int, bit: int = 6) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_an_object_that_was_changed_is_not_read(tmp_path: Path) -> None:
    path, value = tmp_path / "a.json", {"seconds": 1.25, "names": ["ä", None], "n": 3}
    write_sealed(path, value)
    assert read_sealed(path) == value
    path.write_text(path.read_text().replace("1.25", "1.35"))
    assert read_sealed(path) == {}
    for text in ("", "[1]", "{", '{"n": 3}', "[" * 100_000):
        path.write_text(text)
        assert read_sealed(path) == {}


def test_the_order_of_names_and_what_is_not_finite_do_not_change_a_hash() -> None:
    assert digest({"a": 1, "b": float("nan")}) == digest({"b": None, "a": 1}) != digest({"a": 2, "b": None})


@pytest.mark.parametrize("note", ["[" * 100_000, "[1]", "{", '{"about": 3}', '{"about": {}}'])
def test_a_checksum_that_is_none_is_damage(tmp_path: Path, note: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(2)}, path, {NOTE: note})
    with pytest.raises(DamagedError, match="checksum"):
        read_tensors(path)


def test_every_flipped_bit_of_a_tensor_file_is_seen(tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.safetensors", {"w": torch.arange(6.0), "n": torch.tensor([1, 2])}
    write_tensors(path, tensors, {"epoch": 3})
    read, about = read_tensors(path)
    assert about == {"epoch": 3} and all(torch.equal(read[name], tensors[name]) for name in tensors)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole)
        flipped(path, place, place % 8)
        try:
            read, about = read_tensors(path)
        except DamagedError:
            continue
        assert all(torch.equal(read[name], tensors[name]) for name in tensors), place
        assert about in ({"epoch": 3}, None), place


def test_weights_with_a_flipped_bit_are_refused_wherever_they_are_read(tmp_path: Path) -> None:
    model, path = nn.Linear(3, 2), tmp_path / "w.safetensors"
    save_weights(model, path)
    load_weights(model, path)
    flipped(path, -5)
    with pytest.raises(InputError, match="w.safetensors is a damaged .*checksum"):
        load_weights(model, path)


def test_a_flipped_bit_in_a_pytorch_file_is_refused(tmp_path: Path) -> None:
    model, path = nn.Linear(300, 2), tmp_path / "w.pt"
    torch.save(model.state_dict(), path)
    load_weights(model, path)
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda part: part.file_size)
    flipped(path, largest.header_offset + 300)
    with pytest.raises(InputError, match="w.pt is damaged"):
        load_weights(model, path)


def test_a_flipped_bit_in_a_checkpoint_is_named_with_the_ways_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints/last.pt"
    for step in (1, 2):
        checkpoint.save(path, {"step": step, "weights": torch.full((500,), float(step))})
    assert checkpoint.load(path)["step"] == 2 and checkpoint.load(path.with_name("previous.pt"))["step"] == 1
    save_weights(nn.Linear(2, 2), tmp_path / BEST)
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda part: part.file_size)
    flipped(path, largest.header_offset + 300)
    assert "checksum" in damage_of_zip(path)
    with pytest.raises(RunError, match="last.pt is damaged .*previous.pt; or .*--weights .*best.safetensors; or start"):
        checkpoint.load(path)
    path.unlink()
    assert checkpoint.last_of(tmp_path) == path.with_name("previous.pt")


def written(folder: Path, best: dict[str, object], last: dict[str, object]) -> Path:
    write_yaml(folder / CONFIG, CONFIGURATION)
    for name, configuration in ((BEST, best), (MODEL, last)):
        save_weights(nn.Linear(2, 2), folder / name, {"config": note_of(configuration), "epoch": 1})
    return folder


def test_weights_of_another_run_are_refused(tmp_path: Path) -> None:
    other = CONFIGURATION | {"method": {"class_path": "trades"}}
    assert check_weights(written(tmp_path, CONFIGURATION, CONFIGURATION)) == []
    with pytest.raises(InputError, match="differ in method"):
        check_weights(written(tmp_path, other, CONFIGURATION))
    eps = CONFIGURATION | {"threat": "Linf:0.2"}
    with pytest.raises(InputError, match="differ in threat"):
        check_weights(written(tmp_path, eps, CONFIGURATION))


def test_a_configuration_changed_by_hand_is_reported_and_what_nothing_depends_on_is_free(tmp_path: Path) -> None:
    eps = CONFIGURATION | {"threat": "Linf:0.2"}
    assert "was changed after" in check_weights(written(tmp_path, eps, eps))[0]
    recipe = {**CONFIGURATION["recipe"], "checkpoint_minutes": 1.0}  # type: ignore[dict-item]
    assert check_weights(written(tmp_path, CONFIGURATION | {"recipe": recipe, "unperturbed": "2"}, {})) == []
