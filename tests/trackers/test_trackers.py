"""Trackers get the metrics of every epoch, as their own libraries read them back; one that fails is left out."""

import json
import logging
import sqlite3
import struct
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.toys import blobs, mlp
from unperturbed import runs
from unperturbed.catalogue import listing
from unperturbed.errors import InputError, RunError
from unperturbed.methods.erm import ERM
from unperturbed.threat import Threat
from unperturbed.trackers import base
from unperturbed.trackers.base import TrackedRun, Tracker, find_trackers, flat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

RUN: dict[str, Any] = {"method": ERM(), "recipe": Recipe(epochs=3, batch_size=18)}


def trained(folder: Path, track: str) -> list[dict[str, Any]]:
    """Train three epochs with a tracker, and return the lines of metrics.jsonl."""
    train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), out=folder, track=[track], **RUN)
    return runs.read_jsonl(folder / runs.METRICS)


class Recorder(Tracker):
    """A tracker that keeps what it gets, and fails where it is told."""

    name, package = "recorder", "json"
    fails: tuple[str, ...] = ()
    made: list["Recorder"] = []

    def __init__(self, run: TrackedRun) -> None:
        if "open" in self.fails:
            raise ConnectionError("no server")
        self.run, self.written, self.closed = run, list[tuple[int, Mapping[str, float]]](), list[bool]()
        Recorder.made.append(self)

    def write(self, values: Mapping[str, float], step: int) -> None:
        if "write" in self.fails and step > 3:
            raise ConnectionError("the server is gone")
        self.written.append((step, values))

    def close(self, finished: bool) -> None:
        self.closed.append(finished)
        if "close" in self.fails:
            raise ConnectionError("the server is gone")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Have `find_trackers` know the recorder, anew."""
    path = f"{__name__}.Recorder"
    entries = {**listing("trackers"), "recorder": type(listing("trackers")["csv"])("recorder", path, "")}
    monkeypatch.setattr(base, "listing", lambda folder: entries)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Recorder.__module__])
    monkeypatch.setattr(Recorder, "fails", ())
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder


def test_a_tracker_gets_every_epoch_and_the_settings(recorder: type[Recorder], tmp_path: Path) -> None:
    lines = trained(tmp_path / "run", "recorder")
    (tracker,) = recorder.made
    assert [step for step, _ in tracker.written] == [3, 6, 9] and tracker.closed == [True]
    assert [dict(values) for _, values in tracker.written] == lines
    assert tracker.run.name == "run" and tracker.run.settings == runs.read_yaml(tmp_path / "run" / runs.CONFIG)


def test_a_tracker_that_fails_is_left_out_with_one_warning(
    recorder: type[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "fails", ("write",))
    with caplog.at_level(logging.WARNING):
        lines = trained(tmp_path / "run", "recorder")
    warnings = [text for text in caplog.messages if "tracker" in text]
    assert len(lines) == 3 and [step for step, _ in recorder.made[0].written] == [3]
    assert len(warnings) == 1 and "recorder failed at step 6 (ConnectionError: the server is gone)" in warnings[0]
    assert warnings[0] in runs.read_yaml(tmp_path / "run" / runs.RESULT)["warnings"]


def test_a_tracker_that_does_not_end_is_a_warning_too(
    recorder: type[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "fails", ("close",))
    trained(tmp_path / "run", "recorder")
    assert "did not end its run" in " ".join(runs.read_yaml(tmp_path / "run" / runs.RESULT)["warnings"])


def test_a_tracker_that_cannot_begin_stops_before_the_first_step(
    recorder: type[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "fails", ("open",))
    with pytest.raises(RunError, match="recorder: the tracker cannot begin a run .ConnectionError: no server"):
        trained(tmp_path / "run", "recorder")
    assert not (tmp_path / "run" / runs.METRICS).exists()
    monkeypatch.setattr(recorder, "fails", ())
    options: dict[str, Any] = {**RUN, "out": tmp_path / "run", "track": ["recorder"], "resume": True}
    train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), **options)
    assert [step for step, _ in recorder.made[0].written] == [3, 6, 9]


def test_an_interrupted_training_ends_its_tracker_as_unfinished_and_a_resumed_one_tells_all(
    recorder: type[Recorder], tmp_path: Path
) -> None:
    def stop(step: int, *_: Any) -> None:
        if step == 7:
            raise KeyboardInterrupt

    options: dict[str, Any] = {**RUN, "out": tmp_path / "run", "track": ["recorder"]}
    with pytest.raises(KeyboardInterrupt):
        train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), progress=stop, **options)
    train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), resume=True, **options)
    first, second = recorder.made
    assert [step for step, _ in first.written] == [3, 6] and first.closed == [False]
    assert [step for step, _ in second.written] == [3, 6, 9] and second.closed == [True]


@pytest.mark.parametrize("name", sorted(listing("trackers")))
def test_an_absent_package_is_named_before_anything_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    remedy = r"pip install .*unperturbed\[(track|tensorboard)\]"
    with pytest.raises(InputError, match=rf"--track {name} needs the package .* {remedy}"):
        trained(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


def test_trackers_are_found_by_file_and_say_what_they_need() -> None:
    assert sorted(listing("trackers")) == ["csv", "mlflow", "tensorboard", "trackio", "wandb"]
    installed = [name for name in listing("trackers") if name in ("csv",) or find_spec(name) is not None]
    assert [kind.name for kind in find_trackers(installed, Path())] == installed


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "trackio", "wandb"])
def test_the_extra_that_is_named_installs_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.trackers.base.find_spec", lambda package: None)
    with pytest.raises(InputError, match=rf"needs the package {name}, .* pip install 'unperturbed\[(\w+)\]'") as raised:
        find_trackers([name], Path())
    extra = str(raised.value).partition("[")[2].partition("]")[0]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith(name) for line in project["optional-dependencies"][extra])


def test_nested_settings_are_flat_by_dots() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


# The libraries themselves, where they are installed


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_metrics_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    monkeypatch.chdir(tmp_path)
    lines = trained(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("unperturbed").experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(line["step"], line["loss"]) for line in lines]
    assert run.data.params["recipe.epochs"] == "3" and run.info.status == "FINISHED" and run.info.run_name == "run"


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_writes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    lines = trained(tmp_path / "run", "wandb")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    history = wandb_history(file)
    assert [row["step"] for row in history] == [3, 6, 9]
    assert [row["loss"] for row in history] == [line["loss"] for line in lines]


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics in a file of wandb's offline mode."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
    return rows


def log_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, after seven bytes of wandb's: blocks of 32 KiB of pieces."""
    position, record = 7, b""
    while position + 7 <= len(content):
        left = 2**15 - position % 2**15
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        if left < 7 or kind == 0:  # the rest of the block is empty
            position += left
            continue
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield record
            record = b""


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_the_metrics_in_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    lines = trained(tmp_path / "run", "trackio")
    (database,) = (tmp_path / "trackio").glob("unperturbed*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("run", line["step"]) for line in lines]
