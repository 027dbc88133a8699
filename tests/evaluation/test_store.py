import gc
import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from support.shares import first
from support.toys import QUICK, blobs, linear
from unperturbed.attacks.gradient import Suite
from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.runs.verify import read_verified
from unperturbed.threat import Threat

THREAT = Threat("L2", 0.2)
COLUMNS = ["id", "label", "prediction", "verdict", "attack", "restart", "queries", "clean_margin", "margin", "distance"]


def evaluated(n: int, out: Path, suite: Suite = QUICK) -> Outcome:
    return evaluate(linear(6, 3), blobs(n), THREAT, suite, out=out)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 20)


@pytest.mark.slow
def test_parts_and_summary_hold_what_the_outcome_says(tmp_path: Path) -> None:
    outcome = evaluated(50, tmp_path)
    stems = [f"part-{number:05d}" for number in range(3)]
    names = {f"{stem}.{suffix}" for stem in stems for suffix in ("parquet", "safetensors", "json")}
    assert {path.name for path in (tmp_path / "pgd").iterdir()} == names | {"job.json"}
    tables = [parquet.read_table(tmp_path / f"pgd/{stem}.parquet").to_pydict() for stem in stems]
    assert [len(table["id"]) for table in tables] == [20, 20, 10]
    assert list(tables[0]) == COLUMNS
    assert {column: sum((table[column] for table in tables), []) for column in COLUMNS} == outcome.examples
    assert read_verified(tmp_path / "pgd.json") == json.loads(json.dumps(outcome.json()))


@pytest.mark.slow
def test_adversarial_rows_are_those_of_the_broken_examples(tmp_path: Path) -> None:
    outcome, (x, y), model = evaluated(50, tmp_path), blobs(50), linear(6, 3)
    assert outcome.adversarial is None
    written = 0
    for number in range(3):
        stem = tmp_path / f"pgd/part-{number:05d}"
        table = parquet.read_table(stem.with_suffix(".parquet")).to_pydict()
        z = load_file(stem.with_suffix(".safetensors"))["adversarial"]
        ids = [i for i, verdict in zip(table["id"], table["verdict"], strict=True) if verdict == "broken"]
        assert len(ids) == len(z)
        assert THREAT.contains(x[ids], z).all() and (margin(model(z), y[ids]) > 0).all()
        written += len(z)
    assert written == outcome.counts["broken"] > 5
    in_memory = evaluate(linear(6, 3), blobs(50), THREAT, QUICK)
    assert len(in_memory.adversarial) == written


@pytest.mark.slow
def test_parts_of_a_longer_evaluation_do_not_remain(tmp_path: Path) -> None:
    evaluated(50, tmp_path)
    (tmp_path / "pgd/notes.txt").write_text("the user's own")
    outcome = evaluate(linear(6, 3), blobs(15), THREAT, QUICK, out=tmp_path, overwrite=True)
    assert {path.name for path in (tmp_path / "pgd").iterdir()} == {
        "job.json", "part-00000.json", "part-00000.parquet", "part-00000.safetensors", "notes.txt"
    }  # fmt: skip
    assert json.loads((tmp_path / "pgd.json").read_text())["n"] == outcome.n == 15


@pytest.mark.slow
def test_suites_do_not_disturb_each_other(tmp_path: Path) -> None:
    evaluated(15, tmp_path)
    evaluated(15, tmp_path, Suite("other", QUICK.attacks[:1], "a test"))
    assert {path.name for path in tmp_path.iterdir()} == {"pgd", "pgd.json", "other", "other.json"}


def test_no_broken_example_leaves_an_empty_table_of_inputs(tmp_path: Path) -> None:
    x, model = blobs(15)[0], linear(6, 3)
    evaluate(model, (x, model(x).argmax(1)), Threat("L2", 0.0), QUICK, out=tmp_path)
    z = load_file(tmp_path / "pgd/part-00000.safetensors")["adversarial"]
    assert z.shape == (0, 6) and z.dtype == torch.float32


def test_the_environment_is_told(tmp_path: Path) -> None:
    environment = evaluated(15, tmp_path).environment
    assert environment["torch"] == torch.__version__ and environment["seed"] == 0
    assert environment["precision"] == "float32" and environment["batch_size"] == 16
    other = evaluate(linear(6, 3, seed=1), blobs(15), THREAT, QUICK).environment
    assert len(environment["weights"]) == 64 and environment["weights"] != other["weights"]


class Drawn(Split):
    """Examples that are made when they are asked for."""

    shape = (3, 16, 16)

    def __init__(self, n: int) -> None:
        self.labels = torch.arange(n) % 3

    def inputs(self, ids: Tensor) -> Tensor:
        return ids.view(-1, 1, 1, 1).mul(0.1).add(torch.arange(768).view(self.shape)).sin().abs()


@pytest.mark.long
@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many numbers are held in tensors while three blocks are evaluated as while twelve are."""
    for reader in ("unperturbed.evaluation.hashes._READ", "unperturbed.data.check._BLOCK"):
        monkeypatch.setattr(reader, 20)
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", 1e6)  # in the middle of a search more is held
    model, held = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), dict[int, int]()

    for n in (60, 240):

        def look(done: float, total: float, text: str, n: int = n) -> None:
            tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
            held[n] = max(held.get(n, 0), sum(each.numel() for each in tensors))

        evaluate(model, Drawn(n), THREAT, QUICK, out=tmp_path / str(n), progress=look)
    assert 20 * 768 < held[60] and held[240] < 1.2 * held[60], held


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Linf:0.3", "s3:bucket", "a b", "%20", "ünï", "file:x", "x#y?z"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    """Arrow takes what stands before a colon for a file system."""
    first = evaluated(30, tmp_path / name)
    assert comparable(evaluated(30, tmp_path / name)) == comparable(first)


def comparable(outcome: Outcome) -> tuple[object, ...]:
    attacks = [(each.name, each.broken, each.forwards) for each in outcome.attacks]
    return repr(outcome.examples), outcome.robust_accuracy, outcome.counts, attacks


DAMAGES = {
    "bit": lambda content: content[:-30] + bytes([content[-30] ^ 16]) + content[-29:],
    "cut": lambda content: content[:-20],
    "emptied": lambda content: b"",
    "garbage": lambda content: b"garbage" * 40,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", first(1, DAMAGES))
@pytest.mark.parametrize("suffix", ["json", "parquet", "safetensors"])
def test_a_damaged_part_is_measured_again_with_a_warning(
    suffix: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, path = evaluated(50, tmp_path), tmp_path / f"pgd/part-00001.{suffix}"
    content, other = path.read_bytes(), (tmp_path / "pgd/part-00000.parquet").stat().st_mtime_ns
    path.write_bytes(DAMAGES[damage](content))
    assert comparable(evaluated(50, tmp_path)) == comparable(first)
    assert f"part-00001.{suffix} is missing or damaged. This block is measured again." in caplog.text
    assert suffix == "json" or path.read_bytes() == content
    assert (tmp_path / "pgd/part-00000.parquet").stat().st_mtime_ns == other  # what is sound is left


@pytest.mark.slow
def test_the_parts_of_another_job_are_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sound files, of other weights."""
    first = evaluated(50, tmp_path / "a")
    evaluate(linear(6, 3, seed=1), blobs(50), THREAT, QUICK, out=tmp_path / "b")
    for path in (tmp_path / "b/pgd").glob("part-00002.*"):
        (tmp_path / "a/pgd" / path.name).write_bytes(path.read_bytes())
    assert comparable(evaluated(50, tmp_path / "a")) == comparable(first)
    assert "is of another job" in caplog.text


@pytest.mark.slow
def test_a_part_in_the_place_of_another_is_measured_again(tmp_path: Path) -> None:
    first = evaluated(50, tmp_path)
    for path in (tmp_path / "pgd").glob("part-00001.*"):
        path.write_bytes(path.with_name(path.name.replace("1.", "0.", 1)).read_bytes())
    assert comparable(evaluated(50, tmp_path)) == comparable(first)


@pytest.mark.slow
def test_a_number_changed_in_the_record_of_a_part_is_not_reported(tmp_path: Path) -> None:
    first, path = evaluated(50, tmp_path), tmp_path / "pgd/part-00001.json"
    path.write_text(path.read_text().replace('"forwards": ', '"forwards": 9'))
    assert comparable(evaluated(50, tmp_path)) == comparable(first)


@pytest.mark.slow
def test_a_number_changed_in_the_record_of_the_job_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, job = evaluated(50, tmp_path), tmp_path / "pgd/job.json"
    content = job.read_text()
    for damaged in (content.replace('"batch_size": ', '"batch_size": 1'), None):
        job.unlink() if damaged is None else job.write_text(damaged)
        again = evaluated(50, tmp_path)
        assert comparable(again) == comparable(first) and "Loaded from" in again.warnings[-1]
        assert job.read_text() == content and "written again" in caplog.text
    job.write_text("{")
    with pytest.raises(InputError, match="job.json is damaged.*--overwrite"):
        evaluate(linear(6, 3), blobs(50), THREAT, QUICK, out=tmp_path, seed=1)


@pytest.mark.slow
def test_two_evaluations_do_not_write_one_folder_and_other_folders_are_free(tmp_path: Path) -> None:
    refused = []

    def beside(done: float, total: float, text: str) -> None:
        if not refused:
            with pytest.raises(InputError, match="pgd is being written by process"):
                evaluated(50, tmp_path)
            refused.append(evaluated(15, tmp_path, Suite("other", QUICK.attacks[:1], "a test")))

    first = evaluate(linear(6, 3), blobs(50), THREAT, QUICK, out=tmp_path, progress=beside)
    assert len(refused) == 1 and comparable(evaluated(50, tmp_path)) == comparable(first)
