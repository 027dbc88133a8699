"""Laws of all measurements: results do not depend on engine, order, interruption or earlier calls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.shares import first
from support.toys import QUICK, blobs, linear
from unperturbed.engines.base import R, Report, Unit
from unperturbed.engines.group import Group
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.certify import certify
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.measurement import block_size
from unperturbed.evaluation.probable import probable_accuracy
from unperturbed.evaluation.store import Store
from unperturbed.evaluation.transfer import transfer
from unperturbed.findings import Result
from unperturbed.threat import Threat

THREAT = Threat("L2", 0.2)
Measure = Callable[..., Result[Any]]
MEASUREMENTS: dict[str, tuple[Measure, str]] = {
    "accuracy": (lambda **more: evaluate(linear(6, 3), blobs(20), THREAT, QUICK, **more), "pgd"),
    "curve": (lambda **more: minimum_norm(linear(6, 3), blobs(20), THREAT, QUICK, radii=[0.1], **more), "curve-L2"),
    "transfer": (
        lambda **more: transfer({"a": linear(6, 3), "b": linear(6, 3, seed=1)}, blobs(20), THREAT, QUICK, **more),
        "transfer",
    ),
    "certify": (
        lambda **more: certify(linear(6, 3), blobs(20), THREAT, 0.2, draws=12, selection_draws=8, alpha=0.1, **more),
        "certify-L2-0.2",
    ),
    "probable": (lambda **more: probable_accuracy(linear(6, 3), blobs(20), THREAT, 0.1, draws=12, **more), "probable"),
}
every = pytest.mark.parametrize(("measure", "name"), MEASUREMENTS.values(), ids=MEASUREMENTS.keys())
every_or_two = pytest.mark.parametrize(("measure", "name"), first(2, MEASUREMENTS.values()), ids=MEASUREMENTS.keys())


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.block_size", lambda n, workers, most: 10)
    monkeypatch.setattr("unperturbed.evaluation.transfer_block.FURTHER", QUICK.attacks[0])


def comparable(result: Result[Any]) -> tuple[str, dict[str, Any]]:
    def without_seconds(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_seconds(part) for name, part in value.items() if name != "seconds"}
        return [without_seconds(part) for part in value] if isinstance(value, list) else value

    return repr(result.examples), without_seconds(result.json())


class Stopped(Exception):
    """The power failed."""


class Backwards:
    """An engine that executes the units from the last to the first, and the middle one twice."""

    workers = 1

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        if units:
            units[len(units) // 2].work(lambda done, text: None)  # its result is lost
        for unit in reversed(units):
            yield unit.number, unit.work(lambda done, text: None)


@pytest.mark.long
@pytest.mark.slow
@every_or_two
def test_no_engine_changes_the_result(
    measure: Measure, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = comparable(measure())
    for number, engine in enumerate((Backwards(), Group(1, 2))):
        monkeypatch.setattr("unperturbed.engines.by_name.usual_engine", lambda engine=engine: engine)
        assert comparable(measure(out=tmp_path / str(number))) == whole


@pytest.mark.slow
@every_or_two
@pytest.mark.parametrize("stop", first(1, [3, 0]))
def test_a_stopped_measurement_resumes(
    measure: Measure, name: str, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops after the state number `stop`, or the last one before the end; no finished block is measured again."""
    whole, keep, kept, finish, finished = comparable(measure()), Store.keep, list[int](), Store.finish, list[int]()
    states = 0

    def counting(self: Store, number: int, state: Any) -> None:
        nonlocal states
        states += 1

    def keeping(self: Store, number: int, state: Any) -> None:
        keep(self, number, state)
        kept.append(number)
        if len(kept) == min(stop + 1, states):
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(Store, "keep", counting)
        measure(out=tmp_path / "uninterrupted")

    def finishing(self: Store, number: int, part: Any) -> Any:
        finished.append(number)
        return finish(self, number, part)

    monkeypatch.setattr(Store, "keep", keeping)
    monkeypatch.setattr(Store, "finish", finishing)
    folder = tmp_path / "interrupted"
    with pytest.raises(Stopped):
        measure(out=folder)
    again = measure(out=folder)
    assert comparable(again) == whole and len(finished) == len(set(finished))
    assert not list(folder.rglob("*unfinished*")) and (folder / f"{name}.json").exists()


@pytest.mark.slow
@every
def test_a_finished_one_is_loaded_and_another_one_refused(
    measure: Measure, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(out=tmp_path)
    monkeypatch.setattr(Store, "finish", None)
    again = measure(out=tmp_path)
    assert again.warnings[-1].startswith(f"Loaded from {tmp_path / name}")
    assert comparable(replace(again, warnings=again.warnings[:-1])) == comparable(first)
    with pytest.raises(InputError, match="seed was 0, now 1.*--overwrite"):
        measure(out=tmp_path, seed=1)
    monkeypatch.undo()
    other = measure(out=tmp_path, seed=1, overwrite=True)
    assert other.environment["seed"] == 1


@pytest.mark.slow
@every
def test_a_damaged_part_is_measured_again(
    measure: Measure, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, path = comparable(measure(out=tmp_path)), tmp_path / name / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert comparable(measure(out=tmp_path)) == first and "measured again" in caplog.text


@every
def test_several_processes_need_a_folder(measure: Measure, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.engines.by_name.usual_engine", lambda: Group(0, 2))
    with pytest.raises(InputError, match="give `out`"):
        measure()


@every
def test_a_result_is_a_table_and_plain_values(measure: Measure, name: str) -> None:
    result = measure()
    frame, summary = result.table(), result.json()
    assert list(frame.columns) == list(result.examples) and len(frame) == result.n == summary["n"]
    assert {"threat", "n", "clean_accuracy", "clean_interval", "seconds", "warnings", "environment"} <= summary.keys()


def test_other_shares_are_taken_of_the_same_draws(tmp_path: Path) -> None:
    def count(rho: float) -> Result[Any]:
        return probable_accuracy(linear(6, 3), blobs(20), THREAT, rho, draws=20, out=tmp_path)

    assert count(0.1).examples == count(0.2).examples and "Loaded from" in count(0.3).warnings[-1]


@given(st.integers(1, 5000), st.integers(1, 9), st.integers(1, 2000))
@settings(max_examples=200)
def test_blocks_are_small_enough_and_every_worker_has_as_many(n: int, workers: int, most: int) -> None:
    size = block_size(n, workers, most)
    blocks = -(-n // size)
    assert 1 <= size <= max(most, 1) and (blocks - 1) * size < n <= blocks * size
    assert -(-blocks // workers) <= -(-n // (most * workers)), "no worker has more than the fewest that hold its share"
