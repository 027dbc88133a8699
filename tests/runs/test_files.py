import json
import math
import os
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from unperturbed import runs
from unperturbed.errors import InputError, RunError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_write_makes_its_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    runs.write_text(tmp_path / "a/b/c.txt", "text")
    assert (tmp_path / "a/b/c.txt").read_text() == "text" and names(tmp_path / "a/b") == {"c.txt"}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError, RunError),
        (SafetensorError, RunError),
        (RuntimeError, RunError),
        (KeyboardInterrupt, KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(
    error: type[BaseException], raised: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    runs.write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error("no space left")

    with pytest.raises(raised, match="no space left"):
        runs.write_atomically(path, half)
    assert path.read_text() == "old" and names(tmp_path) == {path.name}


def test_a_device_is_not_replaced_by_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "null"
    path.write_text("stands for a device, which only an administrator can make")
    monkeypatch.setattr(Path, "is_char_device", lambda self: self == path)
    with pytest.raises(InputError, match="null is a device"):
        runs.write_text(path, "a file")
    assert path.read_text().startswith("stands for")


def test_a_write_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("n")
        assert path.read_text() == "old" and temporary.parent == path.parent and temporary.suffix == ".pt"
        temporary.write_text("new")

    runs.write_atomically(path, write)
    assert path.read_text() == "new"


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        runs.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644


def test_json_and_yaml_keep_the_order_and_come_back(tmp_path: Path) -> None:
    value = {"b": 1, "a": {"threat": "Linf:8/255", "name": "Größe", "none": None, "list": [1, 2.5, True]}}
    runs.write_json(tmp_path / "v.json", value)
    runs.write_yaml(tmp_path / "v.yaml", value)
    assert json.loads((tmp_path / "v.json").read_text()) == runs.read_yaml(tmp_path / "v.yaml") == value
    assert list(runs.read_yaml(tmp_path / "v.yaml")) == ["b", "a"] and "Größe" in (tmp_path / "v.yaml").read_text()


def test_numbers_that_are_not_finite_are_null_at_any_depth(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "v.json", {"a": math.nan, "b": [1.5, {"c": (math.inf, -math.inf, "inf")}]})
    assert json.loads((tmp_path / "v.json").read_text()) == {"a": None, "b": [1.5, {"c": [None, None, "inf"]}]}


@pytest.mark.parametrize("text", ["", "- a list", "threat: [Linf", "text"])
def test_yaml_without_a_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(InputError, match="v.yaml (is not YAML|holds no options by name)"):
        runs.read_yaml(tmp_path / "v.yaml")


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert runs.read_jsonl(path) == []
    runs.append_jsonl(path, {"epoch": 1})
    runs.append_jsonl(path, {"epoch": 2})
    assert runs.read_jsonl(path) == [{"epoch": 1}, {"epoch": 2}]
    runs.write_jsonl(path, [{"epoch": 3}])
    assert path.read_text() == '{"epoch": 3}\n'


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2, "lo')
    assert runs.read_jsonl(path) == [{"epoch": 1}]


def test_the_evaluation_lies_in_the_run(tmp_path: Path) -> None:
    assert runs.evaluation_folder(tmp_path, "pgd") == tmp_path / "evaluation" / "pgd"
