"""A resumed evaluation has the result of an uninterrupted one, and a folder with a different one is refused."""

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from support.shares import first
from support.toys import QUICK, SHORT, blobs, linear
from unperturbed.attacks.eot import RandomTransform
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation import block, identity, randomised
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.block import Block
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.identity import settings_of
from unperturbed.evaluation.probable import probable_accuracy
from unperturbed.evaluation.randomised import RandomBlock
from unperturbed.evaluation.search import Networks
from unperturbed.evaluation.store import Store
from unperturbed.evaluation.transfer import transfer
from unperturbed.findings import Outcome
from unperturbed.maximise.pgd import PGD
from unperturbed.runs.job import JOB
from unperturbed.threat import Threat

THREAT = Threat("L2", 0.2)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 16)


def problem() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    return linear(6, 3), blobs(50)


def same_results(one: Path, other: Path) -> None:
    parts = sorted(path.name for path in one.glob("part-*.parquet"))
    assert parts and parts == sorted(path.name for path in other.glob("part-*.parquet"))
    for name in parts:
        tables = [parquet.read_table(folder / name).to_pydict() for folder in (one, other)]
        assert repr(tables[0]) == repr(tables[1])  # NaN equals NaN in words
        inputs = [load_file((folder / name).with_suffix(".safetensors"))["adversarial"] for folder in (one, other)]
        assert torch.equal(*inputs)


class Stopped(Exception):
    """Somebody pulled the plug."""


def stopping(at: int, name: str = "attack_block") -> Callable[..., None]:
    """Return `attack_block`, made to stop instead of running for the time number `at`."""
    calls, run = iter(range(at)), getattr(block if name == "attack_block" else randomised, name)

    def attack_block(*words: Any) -> None:
        if next(calls, None) is None:
            raise Stopped
        run(*words)

    return attack_block


def comparable(outcome: Outcome) -> tuple[object, ...]:
    records = [(a.name, a.broken, a.robust_after, a.forwards, a.backwards) for a in outcome.attacks]
    return repr(outcome.examples), outcome.counts, records, outcome.warnings, outcome.environment


@pytest.mark.slow
@pytest.mark.parametrize("at", first(1, (3, 6, 0, 1, 2, 4, 5, 7)))
def test_an_evaluation_ends_as_if_it_had_not_stopped(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks of two attacks."""
    model, data = problem()
    whole = evaluate(model, data, THREAT, QUICK, out=tmp_path / "whole")
    assert whole.counts["broken"] > 5 and whole.counts["survived"] > 2
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(block, "attack_block", stopping(at))
        evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")
    assert not (tmp_path / "other/pgd.json").exists()
    ran: list[int] = []
    run = block.attack_block

    def counted(networks: Networks, known: Block, *rest: Any) -> None:
        ran.append(len(known.tallies))
        run(networks, known, *rest)

    monkeypatch.setattr(block, "attack_block", counted)
    again = evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")
    assert len(ran) == 8 - at, "what was done is not done again"
    same_results(tmp_path / "whole/pgd", tmp_path / "other/pgd")
    assert comparable(again) == comparable(whole)
    assert not list((tmp_path / "other").rglob("*unfinished*"))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at"),
    first(2, (("attack_random_block", 2), ("look_again", 1), *(("attack_random_block", at) for at in (0, 1, 3)))),
)
def test_means_over_draws_end_as_if_they_had_not_stopped(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks of two attacks and a last look at what they found, on a network that draws random numbers."""
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 25)
    model, data = nn.Sequential(RandomTransform(lambda x: x + 0.1 * torch.randn_like(x), linear(6, 3))), blobs(50)
    attacks = tuple(GradientAttack(each.label, each.loss, PGD(steps=3), draws=4) for each in QUICK.attacks)
    suite = Suite("rand", attacks, "a test")
    whole = evaluate(model, data, THREAT, suite, out=tmp_path / "whole")
    assert whole.counts["broken"] > 5 and whole.counts["survived"] > 2
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(randomised, name, stopping(at, name))
        evaluate(model, data, THREAT, suite, out=tmp_path / "other")
    ran, run = list[int](), randomised.attack_random_block

    def counted(networks: Networks, block: RandomBlock, *rest: Any) -> None:
        ran.append(len(block.tallies))
        run(networks, block, *rest)

    monkeypatch.setattr(randomised, "attack_random_block", counted)
    again = evaluate(model, data, THREAT, suite, out=tmp_path / "other")
    assert len(ran) == (4 - at if name == "attack_random_block" else 0), "what was done is not done again"
    same_results(tmp_path / "whole/rand", tmp_path / "other/rand")
    assert comparable(again) == comparable(whole)


@pytest.mark.slow
def test_a_finished_evaluation_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = problem()
    first = evaluate(model, data, THREAT, QUICK, out=tmp_path)
    monkeypatch.setattr(block, "attack_block", stopping(0))
    again = evaluate(model, data, THREAT, QUICK, out=tmp_path)
    text = f"Loaded from {tmp_path / 'pgd'}, where an earlier call finished this evaluation."
    assert again.warnings == (*first.warnings, text) and text in again.json()["warnings"]
    assert comparable(replace(again, warnings=first.warnings)) == comparable(first)
    assert "Loaded from" not in (tmp_path / "pgd.json").read_text()


class Edited(nn.Module):
    """The same weights, description and answers on the grid; `step` is a plain attribute."""

    def __init__(self, step: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.step = linear(6, 3), step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(self.step(x))
        return logits


@pytest.mark.long
@pytest.mark.slow
def test_a_network_whose_code_was_edited_is_not_answered_with_the_results_of_the_first(tmp_path: Path) -> None:
    x, y = blobs(50)
    data = (x * 3).round() / 3, y
    rounding = Edited(lambda x: (x * 3).round() / 3)
    straight = Edited(lambda x: x + ((x * 3).round() / 3 - x).detach())
    evaluate(rounding, data, THREAT, QUICK, out=tmp_path)
    measured = evaluate(straight, data, THREAT, QUICK, out=tmp_path)
    assert any("measured anew" in text for text in measured.warnings)
    assert measured.counts == evaluate(straight, data, THREAT, QUICK).counts


@pytest.mark.slow
def test_a_network_that_cannot_be_described_is_measured_again(tmp_path: Path) -> None:
    model, data = problem()
    model.reader = open(__file__)  # type: ignore[assignment]
    try:
        evaluate(model, data, THREAT, QUICK, out=tmp_path)
        again = evaluate(model, data, THREAT, QUICK, out=tmp_path)
    finally:
        model.reader.close()  # type: ignore[union-attr, operator]
    assert not any("Loaded from" in text for text in again.warnings)
    assert any("cannot be described" in text and "reader" in text for text in again.warnings)


@pytest.mark.slow
def test_a_part_without_its_last_file_is_done_again(tmp_path: Path) -> None:
    """As after a stop between the files of a part."""
    model, data = problem()
    whole = evaluate(model, data, THREAT, QUICK, out=tmp_path / "whole")
    evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")
    (tmp_path / "other/pgd/part-00001.json").unlink()
    (tmp_path / "other/pgd/part-00001.parquet").write_bytes(b"half a ta")
    assert comparable(evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")) == comparable(whole)
    same_results(tmp_path / "whole/pgd", tmp_path / "other/pgd")


OTHER: dict[str, Callable[[nn.Module, Any], Any]] = {
    "weights": lambda model, data: (linear(6, 3, seed=2), data, THREAT, QUICK, 0),
    "data": lambda model, data: (model, (data[0] * 0.999, data[1]), THREAT, QUICK, 0),
    "threat": lambda model, data: (model, data, Threat("L2", 0.25), QUICK, 0),
    "bounds": lambda model, data: (model, data, Threat("L2", 0.2, (-1.0, 2.0)), QUICK, 0),
    "attacks": lambda model, data: (model, data, THREAT, Suite("pgd", QUICK.attacks[:1], ""), 0),
    "seed": lambda model, data: (model, data, THREAT, QUICK, 1),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", first(3, OTHER))
def test_another_evaluation_is_refused_with_the_difference(name: str, tmp_path: Path) -> None:
    model, data = problem()
    evaluate(model, data, THREAT, QUICK, out=tmp_path)
    before = (tmp_path / "pgd.json").read_text()
    *words, seed = OTHER[name](model, data)
    with pytest.raises(InputError, match=f"{name} was .*, now .*overwrite"):
        evaluate(*words, out=tmp_path, seed=seed)
    assert (tmp_path / "pgd.json").read_text() == before
    fresh = evaluate(*words, out=tmp_path, seed=seed, overwrite=True)
    assert comparable(fresh)[:4] == comparable(evaluate(*words, seed=seed))[:4]


@pytest.mark.slow
def test_boxes_that_differ_little_are_told_apart(tmp_path: Path) -> None:
    model, data = problem()
    evaluate(model, data, Threat("L2", 0.2, (0.0, 1.0)), QUICK, out=tmp_path)
    assert '"bounds": "0,1"' in (tmp_path / "pgd" / JOB).read_text()
    with pytest.raises(InputError, match="bounds was 0,1, now 0,1.000001"):
        evaluate(model, data, Threat("L2", 0.2, (0.0, 1.000001)), QUICK, out=tmp_path)


def test_a_suite_is_told_by_its_settings_and_not_by_addresses(tmp_path: Path) -> None:
    """A function's repr holds where it lies in memory, which differs from process to process."""
    evaluate(linear(6, 3), blobs(10), THREAT, QUICK, out=tmp_path)
    text = (tmp_path / "pgd" / JOB).read_text()
    assert "cross_entropy" in text and "steps=" in text and "0x" not in text


class Squared(nn.Linear):
    """The same weights, and another network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x**2)


@pytest.mark.slow
def test_another_network_with_the_same_weights_is_measured_anew(tmp_path: Path) -> None:
    model, data = problem()
    evaluate(model, data, THREAT, QUICK, out=tmp_path)
    other = Squared(6, 3)
    other.load_state_dict(model.state_dict())
    measured = evaluate(other, data, THREAT, QUICK, out=tmp_path)
    assert any("measured anew" in text for text in measured.warnings)
    assert measured.examples == evaluate(other, data, THREAT, QUICK).examples


class Shifted(nn.Module):
    """Holds its normalisation in a buffer that is not saved."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.inner = linear(6, 3)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(x - self.mean)
        return logits


@pytest.mark.slow
def test_a_buffer_that_is_not_saved_belongs_to_the_weights(tmp_path: Path) -> None:
    """So small a difference that the answers to the first examples do not tell it."""
    data = blobs(50)
    evaluate(Shifted(0.0), data, THREAT, QUICK, out=tmp_path)
    with pytest.raises(InputError, match="weights was .*, now"):
        evaluate(Shifted(1e-4), data, THREAT, QUICK, out=tmp_path)


def test_a_loss_that_was_rewritten_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its name is the same."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number, sign in enumerate(("", "-")):
        source = f"from unperturbed.losses import margin\n\ndef mine(logits, y):\n    return {sign}margin(logits, y)\n"
        (tmp_path / f"rewritten{number}.py").write_text(source)
        mine = importlib.import_module(f"rewritten{number}").mine
        found.append(settings_of(Suite("s", (GradientAttack("a", mine, PGD(steps=2)),), "")))
    assert found[0] != found[1] and found[0].split(") ")[0] == found[1].split(") ")[0]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["json", "parquet", "safetensors"])
def test_a_part_that_lost_a_file_is_done_again(suffix: str, tmp_path: Path) -> None:
    model, data = problem()
    whole = evaluate(model, data, THREAT, QUICK, out=tmp_path / "whole")
    evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")
    (tmp_path / f"other/pgd/part-00002.{suffix}").unlink()
    (tmp_path / "other/pgd/part-00002.unfinished").write_bytes(b"")
    assert comparable(evaluate(model, data, THREAT, QUICK, out=tmp_path / "other")) == comparable(whole)
    same_results(tmp_path / "whole/pgd", tmp_path / "other/pgd")


@pytest.mark.slow
def test_a_damaged_job_without_parts_that_fit_is_refused_and_may_be_replaced(tmp_path: Path) -> None:
    model, data = problem()
    evaluate(model, data, THREAT, QUICK, out=tmp_path)
    (tmp_path / "pgd" / JOB).write_text("")
    for part in (tmp_path / "pgd").glob("part-*.json"):
        part.unlink()
    with pytest.raises(InputError, match="damaged.*overwrite"):
        evaluate(model, data, THREAT, QUICK, out=tmp_path)
    assert evaluate(model, data, THREAT, QUICK, out=tmp_path, overwrite=True).n == 50


@pytest.mark.slow
def test_another_batch_size_is_not_taken_up_midway_and_that_is_said(tmp_path: Path) -> None:
    model, data = problem()
    first = evaluate(model, data, THREAT, QUICK, out=tmp_path, batch_size=16)
    again = evaluate(model, data, THREAT, QUICK, out=tmp_path, batch_size=4)
    assert repr(again.examples) == repr(first.examples)
    assert any("resumes with the batch size that it began with, 16" in text for text in again.warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "value"),
    [("torch", "torch.__version__", "1.0.0"), ("device", f"{identity.__name__}.device_kind", lambda device: "gpu")],
)
def test_another_torch_or_kind_of_device_is_refused(
    name: str, module: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody promises that they give the same numbers; a finished evaluation may be replaced, not gone on with."""
    model, data = problem()
    evaluate(model, data, THREAT, QUICK, out=tmp_path)
    monkeypatch.setattr(module, value)
    with pytest.raises(InputError, match=f"{name} was .*, now .*overwrite"):
        evaluate(model, data, THREAT, QUICK, out=tmp_path)
    assert evaluate(model, data, THREAT, QUICK, out=tmp_path, overwrite=True).n == 50


@pytest.mark.slow
def test_other_threads_are_told_and_not_refused(tmp_path: Path) -> None:
    model, data = problem()
    first = evaluate(model, data, THREAT, QUICK, out=tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = evaluate(model, data, THREAT, QUICK, out=tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert again.examples == first.examples and again.environment["threads"] == first.environment["threads"] == 1
    assert any("began with 1 threads and resumes with 3" in text for text in again.warnings)


SCRIPT = """
import os, random, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from support.toys import blobs, linear
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.square import Square
from unperturbed.evaluation import accuracy, measurement
from unperturbed.losses import cross_entropy
from unperturbed.maximise.apgd import APGD
from unperturbed.threat import Threat

torch.set_num_threads(1)
measurement.BLOCK = 20
whole, killed = Path(sys.argv[2]), Path(sys.argv[3])


def begin(out):
    child = os.fork()
    if child == 0:
        climb = GradientAttack("APGD-CE", cross_entropy, APGD(steps=20))
        suite = Suite("standard", (climb, FAB("FAB-T", targets=2, steps=20), Square(queries=100)), "shorter")
        accuracy.evaluate(linear(6, 3), blobs(80), Threat("L2", 0.15), suite, out=out, batch_size=16)
        os._exit(0)
    return child


began = time.perf_counter()
assert os.waitpid(begin(whole), 0)[1] == 0
usual, draw, kills = time.perf_counter() - began, random.Random(0), 0
while kills < 20:
    child = begin(killed)
    time.sleep(usual * draw.uniform(0.02, 0.6))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    kills += os.WIFSIGNALED(status)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    if (killed / "standard.json").exists():
        shutil.rmtree(killed)
assert os.waitpid(begin(killed), 0)[1] == 0
"""


@pytest.mark.long
@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    words = [str(Path(__file__).parents[1]), str(tmp_path / "whole"), str(tmp_path / "killed")]
    subprocess.run([sys.executable, "-c", SCRIPT, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    same_results(tmp_path / "whole/standard", tmp_path / "killed/standard")


SHARED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from support.toys import QUICK, SHORT, blobs, linear
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.probable import probable_accuracy
from unperturbed.evaluation.transfer import transfer
from unperturbed.threat import Threat

torch.set_num_threads(1)
meeting, out = sys.argv[2], Path(sys.argv[3])
child = os.fork()
rank = 0 if child else 1
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
for suite in (QUICK, *SHORT):
    outcome = evaluate(linear(6, 3), blobs(90), Threat("L2", 0.2), suite, out=out)
    assert outcome.n == 90 == len(outcome.examples["id"])
data, threat, networks = blobs(90), Threat("L2", 0.2), {"a": linear(6, 3), "b": linear(6, 3, seed=1)}
results = [
    transfer(networks, data, threat, QUICK, out=out),
    minimum_norm(networks["a"], data, threat, QUICK, radii=[0.1], out=out),
    probable_accuracy(networks["a"], data, threat, 0.1, draws=10, out=out),
]
(out / f"examples-{rank}.txt").write_text(repr([result.examples for result in results]))
torch.distributed.destroy_process_group()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_give_the_verdicts_of_one(tmp_path: Path) -> None:
    """But for examples within 1e-4 of a tie."""
    words = [str(Path(__file__).parents[1]), str(tmp_path / "meeting"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", SHARED, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    for suite in (QUICK, *SHORT):
        one = evaluate(linear(6, 3), blobs(90), THREAT, suite)
        parts = [Store(tmp_path / "out" / suite.name).read(number).table for number in range(2)]
        both = {column: [*parts[0][column], *parts[1][column]] for column in parts[0]}
        assert both["id"] == one.examples["id"] and [len(part["id"]) for part in parts] == [45, 45]
        for row, verdict in enumerate(one.examples["verdict"]):
            assert both["verdict"][row] == verdict or abs(one.examples["margin"][row]) <= 1e-4
        assert {"broken", "survived"} <= set(both["verdict"])
    first, second = ((tmp_path / "out" / f"examples-{rank}.txt").read_text() for rank in range(2))
    assert first == second, "every process has the whole result"
    networks = {"a": linear(6, 3), "b": linear(6, 3, seed=1)}
    alone = [
        transfer(networks, blobs(90), THREAT, QUICK),
        minimum_norm(networks["a"], blobs(90), THREAT, QUICK, radii=[0.1]),
        probable_accuracy(networks["a"], blobs(90), THREAT, 0.1, draws=10),
    ]
    for one, shared in zip(alone, eval(first, {"nan": math.nan, "inf": math.inf}), strict=True):
        assert list(one.examples) == list(shared) and one.examples["id"] == shared["id"]
        for name in set(shared) & {"right", "b on points of a"}:
            assert sum(a != b for a, b in zip(one.examples[name], shared[name], strict=True)) <= 1
        if "distance" in shared:
            assert shared["distance"] == pytest.approx(one.examples["distance"], rel=1e-3)
