"""The record of a run: read as it was written, and refused where it says something that no run writes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from unperturbed import runs
from unperturbed.errors import InputError
from unperturbed.runs.record import MOST_ROWS, SCHEMA, ModelSpec, Network, RunRecord, TrainedOn, read_rows, write_rows

RECIPE = {"seed": 3, "epochs": 2, "validation": 0.1, "lr": None}
WHOLE: dict[str, Any] = {
    "schema": 2,
    "unperturbed": "0.1.0",
    "threat": "Linf:0.1",
    "bounds": [0.0, 1.0],
    "data": "digits",
    "classes": ["0", "1"],
    "examples": None,
    "extra": None,
    "model": {"class_path": "mlp", "init_args": {"hidden": [8]}},
    "weights": None,
    "method": {"class_path": "at", "init_args": {"maximiser": {"class_path": "pgd"}}},
    "recipe": RECIPE,
    "chosen": {"training_examples": 54, "held_out_examples": 6, "data": "0123"},
    "network": {"class_path": "a.Net", "architecture": "89ab", "parameters": 10},
    "trained_on": {"name": "digits", "examples": 60, "shape": [1, 8, 8], "rows": "0-59"},
}


def write(folder: Path, content: dict[str, Any]) -> None:
    (folder / runs.CONFIG).write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    record = RunRecord.read(tmp_path)
    assert record.model == ModelSpec("mlp", {"hidden": [8]}) and record.network == Network("a.Net", "89ab", 10)
    assert record.trained_on == TrainedOn("digits", 60, (1, 8, 8), "0-59") and record.classes == ("0", "1")
    assert record.plain() == WHOLE and list(record.plain())[:3] == ["schema", "unperturbed", "threat"]
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record and record.strength == 0.1


def test_records_of_earlier_versions_are_read(tmp_path: Path) -> None:
    inner = {"class_path": "constrained", "init_args": {"objective": {"class_path": "at"}, "objective_loss": 0.1}}
    write(tmp_path, WHOLE | {"method": {"class_path": "awp", "init_args": {"gamma": 0.1, "objective": inner}}})
    renamed = {"class_path": "constrained", "init_args": {"method": {"class_path": "at"}, "method_loss": 0.1}}
    method = RunRecord.read(tmp_path).method
    assert method == {"class_path": "awp", "init_args": {"gamma": 0.1, "method": renamed}}
    new = ("schema", "network", "trained_on")
    write(tmp_path, {name: value for name, value in WHOLE.items() if name not in new})
    record = RunRecord.read(tmp_path)
    assert (record.schema, record.network, record.trained_on) == (1, None, None) and record.data == "digits"
    write(tmp_path, {name: WHOLE[name] for name in ("threat", "bounds", "method", "recipe", "chosen")})
    assert RunRecord.read(tmp_path).model is None  # from Python
    write(tmp_path, {name: WHOLE[name] for name in ("data", "model", "weights", "threat", "bounds")})
    assert RunRecord.read(tmp_path).recipe is None  # of evaluations


@pytest.mark.parametrize(("radius", "method"), [(0.0, {"class_path": "erm"}), (0.25, "some function"), (0.0, None)])
def test_the_strength_is_that_of_what_perturbs(radius: float, method: Any) -> None:
    assert RunRecord(threat="L2:1/4", method=method).strength == radius


JUNK: tuple[Any, ...] = (7, 1.5, True, "", "text", [], [1], {}, {"a": 1}, {"class_path": 3}, [[1], 2], float("nan"), -1)
TAKEN: dict[str, tuple[Any, ...]] = {
    "schema": (),
    "unperturbed": ("text",),
    "threat": (),
    "bounds": ([[1], 2],),
    "data": ("text",),
    "classes": ([],),
    "examples": (7, "text", -1),
    "extra": ("text",),
    "model": (),
    "weights": ("text",),
    "method": ("text",),
    "recipe": (),
    "chosen": ({}, {"a": 1}, {"class_path": 3}),
    "network": (),
    "trained_on": (),
    "recipe.seed": (7,),
    "recipe.epochs": (7,),
    "recipe.validation": (),
    "model.class_path": ("text",),
    "model.init_args": ({}, {"a": 1}, {"class_path": 3}),
    "method.class_path": ("text",),
    "method.init_args": ({}, {"a": 1}, {"class_path": 3}),
    "chosen.data": ("text", ""),
    "network.architecture": ("text",),
    "trained_on.examples": (7, -1),
    "trained_on.shape": ([], [1]),
}
"""The values of `JUNK` that are valid in each field of the record."""


@pytest.mark.parametrize("name", TAKEN)
def test_a_field_of_another_type_is_refused_by_name_and_value(name: str, tmp_path: Path) -> None:
    for value in (each for each in JUNK if repr(each) not in map(repr, TAKEN[name])):
        root, _, below = name.partition(".")
        content = WHOLE | {root: WHOLE[root] | {below: value} if below else value}
        write(tmp_path, content)
        with pytest.raises(InputError, match=r"config\.yaml") as caught:
            RunRecord.read(tmp_path)
        assert root in str(caught.value), (value, str(caught.value))


@pytest.mark.parametrize("name", ["threat", "bounds", "method", "recipe", "chosen"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path, {key: value for key, value in WHOLE.items() if key != name})
    with pytest.raises(InputError, match=name):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "bounds", [[1, 0], [[0.0, 1.0], [1.0, 0.5]], [[0.0, 2.0], 1.0], [[0, 0], [1, 1, 1]], [0, 10**400]]
)
def test_bounds_between_which_no_input_lies_are_refused(bounds: Any, tmp_path: Path) -> None:
    write(tmp_path, WHOLE | {"bounds": bounds})
    with pytest.raises(InputError, match="bounds is .* but must be the lowest input, then the highest"):
        RunRecord.read(tmp_path)
    with pytest.raises(InputError, match="bounds"):
        RunRecord.of(WHOLE | {"bounds": bounds}, "this run")
    assert RunRecord.of(WHOLE | {"bounds": [[0.0, 1.0], [1.0, 1.0]]}, "").bounds is not None


@pytest.mark.parametrize(
    "threat", ["Linf", "Linf:", "Linf:x", "L7:1", "Linf:-1", "Linf:nan", "Linf:inf", "L2:1/0", "0.1"]
)
def test_a_threat_that_is_none_is_refused(threat: str, tmp_path: Path) -> None:
    write(tmp_path, WHOLE | {"threat": threat})
    with pytest.raises(InputError, match=r"threat is .* but must be"):
        RunRecord.read(tmp_path)


def test_an_unknown_field_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, WHOLE | {"bonds": [0, 1]})
    with pytest.raises(InputError, match="unknown field 'bonds'.*Did you mean 'bounds'"):
        RunRecord.read(tmp_path)
    write(tmp_path, WHOLE | {"schema": SCHEMA + 1})
    with pytest.raises(InputError, match=f"schema is {SCHEMA + 1}"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x01", b"- a", b"text", b"a: [", b"{}", b"null", b"threat: {}"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / runs.CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        RunRecord.read(tmp_path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / runs.CONFIG).mkdir()
    with pytest.raises(InputError, match="no file config.yaml"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize("rows", [[0], [0, 1, 2], [5, 3, 4, 9], list(range(1000)), [2, 2]])
def test_rows_come_back(rows: list[int]) -> None:
    text = write_rows(rows)
    assert text is not None and read_rows(text, "here") == rows
    assert write_rows(list(range(0, 100, 2)), longest=20) is None and write_rows(list(range(10**5))) == "0-99999"


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "1-x", "1;2", f"0-{MOST_ROWS * 10**9}", "1.5"])
def test_rows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"trained_on\.rows"):
        read_rows(text, "here")
