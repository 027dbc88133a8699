"""A run that stops anywhere and resumes ends with the same bits."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.shares import first
from support.toys import Stopped, blobs, equal, mlp, state, stop_at, without_seconds
from unperturbed import runs
from unperturbed.errors import InputError, RunError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.dale import DALELaplacian
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.runs.weights import check_weights
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

THREAT = Threat("Linf", 0.1)


def images() -> Any:
    x, y = blobs(60, d=64)
    return x.reshape(60, 1, 8, 8), y


@dataclass(frozen=True)
class Case:
    """A kind of run; four epochs of three steps."""

    method: Callable[[], Method]
    model: Callable[[int], nn.Module] = lambda seed: mlp(6, 3, seed)
    recipe: Recipe = Recipe(epochs=4, batch_size=18)
    data: Callable[[], Any] = lambda: blobs(60)
    extra: Any = None

    def run(self, model: nn.Module, out: Path, minutes: float = 10.0, **options: Any) -> None:
        settings = {name: getattr(self.recipe, name) for name in self.recipe.__dataclass_fields__}
        recipe = Recipe(**settings | {"checkpoint_minutes": minutes})
        train(model, self.data(), THREAT, self.method(), recipe, out=out, extra=self.extra, **options)


CASES = {
    "at": Case(lambda: AT(PGD(3))),
    "free": Case(Free),
    "trades with momentum": Case(lambda: TRADES(maximiser=PGD(2)), recipe=Recipe(4, 18, "sgd")),
    "averaging and batch norm": Case(
        lambda: AT(PGD(2)), lambda seed: mlp(6, 3, seed, norm=True), Recipe(4, 18, averaging=0.7)
    ),
    "dropout": Case(ERM, lambda seed: mlp(6, 3, seed, dropout=0.4)),
    "extra data": Case(ERM, recipe=Recipe(4, 24, extra_ratio=0.3, label_smoothing=0.1), extra=blobs(31, seed=4)),
    "awp, constrained, llr": Case(
        lambda: AWP(Constrained(LLR(), nominal_loss=0.8, every="epoch", wait=0), gamma=0.02),
        lambda seed: mlp(6, 3, seed, norm=True),
        Recipe(4, 18),
    ),
    "constrained scorpio": Case(lambda: Constrained(SCORPIO(), nominal_accuracy=0.9), recipe=Recipe(4, 18, "sgd")),
    "constrained trades": Case(lambda: Constrained(TRADES(maximiser=PGD(2)), method_loss=0.9)),
    "dale in awp": Case(lambda: AWP(DALELaplacian())),
    "augmented, in bfloat16": Case(
        lambda: AT(PGD(2)),
        lambda seed: nn.Sequential(nn.Unflatten(1, (1,)), nn.Flatten(), mlp(64, 3, seed)),
        Recipe(4, 18, augment="flip-crop", precision="bf16", clip_grad_norm=0.5),
        images,
    ),
}


def everything(folder: Path) -> dict[str, Any]:
    """Return all that a run leaves behind, but for the time it took."""
    last = checkpoint.load(folder / runs.CHECKPOINT)
    last["state"].pop("seconds")
    files = {name: (folder / name).read_bytes() for name in (runs.BEST, runs.MODEL, runs.CONFIG)}
    return files | {"metrics": without_seconds(runs.read_jsonl(folder / runs.METRICS)), "last": last}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", first(4, CASES))
def test_a_run_resumed_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    """Stopped with a checkpoint every step (after steps 2 and 7), and with one every epoch (after step 8)."""
    case = CASES[name]
    straight = case.model(0)
    case.run(straight, tmp_path / "straight")
    for minutes, stops in ((1e-9, (2, 7)), (10.0, (8,))):
        folder = tmp_path / f"stopped {minutes}"
        for number, step in enumerate(stops):
            with pytest.raises(Stopped):
                case.run(case.model(number), folder, minutes, resume=number > 0, progress=stop_at(step))
        with pytest.raises(Stopped):  # at the step after the last checkpoint
            case.run(case.model(5), folder, minutes, resume=True, progress=stop_at(7))
        model = case.model(6)  # its weights come from the checkpoint
        case.run(model, folder, minutes, resume=True)
        assert equal(state(model), state(straight))
        expected, found = everything(tmp_path / "straight"), everything(folder)
        if minutes < 1:
            expected.pop(runs.CONFIG), found.pop(runs.CONFIG)  # which says how often checkpoints are written
        assert [key for key in expected if not same(expected[key], found[key])] == []


def at_run(out: Path, **options: Any) -> None:
    CASES["at"].run(mlp(6, 3), out, **options)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    at_run(tmp_path)
    before = everything(tmp_path)
    steps: list[float] = []
    at_run(tmp_path, resume=True, progress=lambda done, *_: steps.append(done))
    assert steps == [] and same(before, everything(tmp_path))


@pytest.mark.slow
def test_resume_without_a_run_begins_one(tmp_path: Path) -> None:
    at_run(tmp_path / "a", resume=True)
    at_run(tmp_path / "b")
    assert same(everything(tmp_path / "a"), everything(tmp_path / "b"))


@pytest.mark.slow
def test_resume_before_the_first_checkpoint_begins_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at_run(tmp_path / "straight")
    with pytest.raises(Stopped):
        at_run(tmp_path / "run", progress=stop_at(2))
    caplog.set_level("INFO", "unperturbed")
    at_run(tmp_path / "run", resume=True)
    assert f"There is no checkpoint in {tmp_path / 'run'} yet: the training starts from the beginning." in caplog.text
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "run"))


def test_a_finished_run_without_its_checkpoint_is_not_trained_anew(tmp_path: Path) -> None:
    at_run(tmp_path)
    (tmp_path / runs.CHECKPOINT).unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="finished run without its checkpoint"):
        at_run(tmp_path, resume=True)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
@pytest.mark.parametrize("failing", [1, 2])
def test_after_a_full_disk_no_epoch_is_told_twice(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the checkpoint of this epoch is written, after its line of metrics."""
    at_run(tmp_path / "straight")
    save, count = torch.save, [0]

    def full(value: object, path: Path) -> None:
        count[0] += 1
        if count[0] == failing:
            path.write_text("half of i")
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match="last.pt cannot be written .*No space left"):
        at_run(tmp_path / "run")
    assert (tmp_path / "run" / runs.CHECKPOINT).exists() == (failing == 2)
    at_run(tmp_path / "run", resume=True)
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "run"))


@pytest.mark.slow
def test_a_line_of_metrics_that_was_cut_off_is_written_anew(tmp_path: Path) -> None:
    at_run(tmp_path / "straight")
    with pytest.raises(Stopped):
        at_run(tmp_path / "run", progress=stop_at(8))
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "st')
    at_run(tmp_path / "run", resume=True)
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "run"))


# Whose folder it is


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    at_run(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="already holds a run: pass --resume to resume it, or choose another"):
        at_run(tmp_path)
    assert same(before, everything(tmp_path))


@pytest.mark.parametrize(
    ("method", "recipe", "threat", "message"),
    [
        (AT(PGD(3)), Recipe(4, 18, lr=0.5), THREAT, "recipe.lr was None and is 0.5"),
        (AT(PGD(4)), Recipe(4, 18), THREAT, "method.init_args.maximiser.init_args.steps was 3 and is 4"),
        (AT(PGD(3)), Recipe(4, 18), Threat("Linf", 0.2), "threat was 'Linf:0.1' and is 'Linf:0.2'"),
        (AT(PGD(3)), Recipe(4, 18), Threat("Linf", 0.1, (0.0, 1.5)), "bounds was .* and is"),
        (ERM(), Recipe(4, 18), THREAT, "method.class_path was 'at' and is 'erm'"),
    ],
)
def test_another_run_is_not_resumed(
    method: Method, recipe: Recipe, threat: Threat, message: str, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        at_run(tmp_path, progress=stop_at(5))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"holds another run: .*{message}"):
        train(mlp(6, 3), blobs(60), threat, method, recipe, out=tmp_path, resume=True)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_how_often_a_run_is_saved_may_change(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=18, checkpoint_minutes=0.5)
    with pytest.raises(Stopped):
        at_run(tmp_path, progress=stop_at(5))
    resumed = train(mlp(6, 3), blobs(60), THREAT, AT(PGD(3)), recipe, out=tmp_path, resume=True)
    assert resumed.epochs == 4


def test_other_data_is_another_run(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        at_run(tmp_path, progress=stop_at(5))
    with pytest.raises(InputError, match="chosen.training_examples was 54 and is 71"):
        train(mlp(6, 3), blobs(80), THREAT, AT(PGD(3)), Recipe(4, 18), out=tmp_path, resume=True)


@pytest.mark.parametrize("changed", ["inputs", "labels", "extra"])
def test_other_examples_of_the_same_number_are_another_run(changed: str, tmp_path: Path) -> None:
    x, y = blobs(60)
    with pytest.raises(Stopped):
        at_run(tmp_path, progress=stop_at(5))
    data = {"inputs": (x.flip(1), y), "labels": (x, y.flip(0)), "extra": (x, y)}[changed]
    extra = blobs(30, seed=5) if changed == "extra" else None
    with pytest.raises(InputError, match=r"chosen\.(data|extra) was .* and is"):
        train(mlp(6, 3), data, THREAT, AT(PGD(3)), Recipe(4, 18), out=tmp_path, resume=True, extra=extra)


def test_what_a_killed_run_left_half_written_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".config.123.yaml").write_text("half")
    at_run(tmp_path, resume=True)
    assert (tmp_path / runs.RESULT).exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_with_other_things_is_left_alone(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter one")
    with pytest.raises(InputError, match=r"is not empty \(thesis.tex\) and holds no run: choose another one"):
        at_run(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        at_run(tmp_path, progress=stop_at(5))
    path = tmp_path / runs.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match="is damaged"):
        at_run(tmp_path, resume=True)


# What is damaged, or taken away


def flip(path: Path) -> None:
    """Flip a bit of a tensor; between those of a checkpoint lies padding."""
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if path.suffix == ".pt":
        largest = max(zipfile.ZipFile(path).infolist(), key=lambda part: part.file_size)
        place = largest.header_offset + 30 + len(largest.filename) + largest.file_size // 2
    content[place] ^= 64
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_for_the_one_before_it(tmp_path: Path) -> None:
    at_run(tmp_path / "straight")
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        at_run(run, progress=stop_at(8))
    flip(run / runs.CHECKPOINT)
    with pytest.raises(RunError, match="last.pt is damaged .*--resume uses the checkpoint before it, .*previous.pt"):
        at_run(run, resume=True)
    (run / runs.CHECKPOINT).unlink()
    at_run(run, resume=True)
    assert same(everything(tmp_path / "straight"), everything(run)) and not (run / runs.PREVIOUS).exists()


@pytest.mark.slow
def test_damaged_best_weights_are_written_anew_where_the_checkpoint_has_them(tmp_path: Path) -> None:
    at_run(tmp_path / "straight")
    with pytest.raises(Stopped):
        at_run(tmp_path / "run", progress=stop_at(5))
    flip(tmp_path / "run" / runs.BEST)
    at_run(tmp_path / "run", resume=True)
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "run"))


def test_lost_best_weights_of_an_earlier_epoch_are_named(tmp_path: Path) -> None:
    at_run(tmp_path)
    assert json.loads((tmp_path / runs.RESULT).read_text())["best_epoch"] < 4
    flip(tmp_path / runs.BEST)
    with pytest.raises(RunError, match="best.safetensors is damaged or missing .*put back a copy"):
        at_run(tmp_path, resume=True)


@pytest.mark.slow
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    at_run(tmp_path / "run")
    train(mlp(6, 3), blobs(60), THREAT, ERM(), Recipe(4, 18), out=tmp_path / "other")
    (tmp_path / "run" / runs.CHECKPOINT).write_bytes((tmp_path / "other" / runs.CHECKPOINT).read_bytes())
    with pytest.raises(RunError, match="it is of another run"):
        at_run(tmp_path / "run", resume=True)


FOREIGN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda held: {},
    "another step": lambda held: held | {"state": held["state"] | {"step": 10**30}},
    "a step before the first": lambda held: held | {"state": held["state"] | {"step": -1}},
    "a loop without end": lambda held: held | {"state": held["state"] | {"strengthened": 10**15}},
    "a text": lambda held: held | {"state": held["state"] | {"step": "7"}},
    "another field": lambda held: held | {"state": held["state"] | {"other": 1}},
    "other weights": lambda held: held | {"model": {}},
    "huge weights": lambda held: held | {"model": {key: torch.zeros(1).expand(10**6, 10**6) for key in held["model"]}},
    "no optimiser": lambda held: {key: value for key, value in held.items() if key != "optimiser"},
    "no random numbers": lambda held: held | {"own": {}},
    "other metrics": lambda held: held | {"metrics": "none"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_sound_file_with_other_contents_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    case = CASES["at"]
    with pytest.raises(Stopped):
        case.run(case.model(0), tmp_path, 1e-9, progress=stop_at(2))
    path = tmp_path / runs.CHECKPOINT
    torch.save(FOREIGN[name](checkpoint.load(path)), path)
    with pytest.raises(RunError, match="is damaged"):
        case.run(case.model(1), tmp_path, resume=True)


def test_changed_metrics_are_restored_from_the_checkpoint(tmp_path: Path) -> None:
    at_run(tmp_path)
    path = tmp_path / runs.METRICS
    before = without_seconds(runs.read_jsonl(path))
    path.write_text(path.read_text().replace('"loss": 0', '"loss": 1').replace('"loss": 1', '"loss": 3'))
    assert without_seconds(runs.read_jsonl(path)) != before
    at_run(tmp_path, resume=True)
    assert without_seconds(runs.read_jsonl(path)) == before


@pytest.mark.slow
def test_a_live_run_is_neither_begun_again_nor_resumed_beside_itself(tmp_path: Path) -> None:
    refused = []

    def beside(done: float, total: float, text: str) -> None:
        if done == 5:
            for resume in (False, True):
                with pytest.raises(InputError, match=f"is being written by process {os.getpid()} on"):
                    at_run(tmp_path / "run", resume=resume)
                refused.append(resume)

    at_run(tmp_path / "straight")
    at_run(tmp_path / "run", progress=beside)
    assert refused == [False, True]
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_whose_folder_is_moved_or_deleted_ends_with_the_truth(deleted: bool, tmp_path: Path) -> None:
    def away(done: float, total: float, text: str) -> None:
        if done == 5:
            shutil.rmtree(tmp_path / "run") if deleted else (tmp_path / "run").rename(tmp_path / "elsewhere")

    at_run(tmp_path / "straight")
    with pytest.raises(RunError, match="run was moved or deleted while it was written into"):
        at_run(tmp_path / "run", progress=away)
    assert not (tmp_path / "run").exists()
    if not deleted:
        at_run(tmp_path / "elsewhere", resume=True)
        assert same(everything(tmp_path / "straight"), everything(tmp_path / "elsewhere"))


def test_weights_belong_to_the_configuration_beside_them(tmp_path: Path) -> None:
    at_run(tmp_path)
    assert check_weights(tmp_path) == []
    (tmp_path / runs.CONFIG).write_text((tmp_path / runs.CONFIG).read_text().replace("steps: 3", "steps: 4"))
    with pytest.raises(InputError, match="differ in method"):
        check_weights(tmp_path)
