"""The matrix of transfer, against closed forms on linear networks and against `evaluate`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from torch import Tensor, nn

from support.examples import untouched
from support.shares import first
from support.toys import QUICK, Function, blobs, linear, mlp, uniform
from unperturbed.attacks.gradient import Suite
from unperturbed.data.split import array_split, select
from unperturbed.errors import InputError
from unperturbed.evaluation import block, measurement
from unperturbed.evaluation import transfer_block as module
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.transfer import transfer
from unperturbed.findings import Transfer
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.runs.verify import read_verified
from unperturbed.statistics.intervals import wilson
from unperturbed.suites.autoattack import RAND
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels, Logits, Norm

THREAT = Threat("Linf", 0.06)


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what goes on after the suite do so in few steps; on linear networks they are enough."""
    monkeypatch.setattr(module, "FURTHER", replace(module.FURTHER, ascent=PGD(steps=8)))


def slope(model: nn.Linear, y: Labels) -> Tensor:
    """Return the margin's gradient: the other class's weights less the label's."""
    return torch.where(y[:, None] == 0, model.weight[1] - model.weight[0], model.weight[0] - model.weight[1])


def values(found: Transfer) -> list[list[float]]:
    return [[each.value for each in row] for row in found.accuracy]


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.15), ("L1", 0.5)])
def test_on_linear_networks_points_are_the_worst_ones_of_the_source(norm: Norm, eps: float) -> None:
    """Also where the source is wrong there, or at x already: what another network says of them is known."""
    x, threat, models = uniform(150, 8), Threat(norm, eps), {f"seed {s}": linear(8, 2, seed=s) for s in (1, 2, 3)}
    y = (sum(m(x) for m in models.values()) / 3).argmax(1)
    found = transfer(models, (x, y), threat, QUICK)
    for i, source in enumerate(models.values()):
        z = threat.maximise_linear(x, slope(source, y))
        for j, target in enumerate(models.values()):
            margins = margin(target(z), y)
            close = float((margins.abs() < 0.03).float().mean())
            assert abs(found.accuracy[i][j].value - float((margins < 0).float().mean())) <= close + 0.01
            assert i == j or close < 0.06
    assert all(each.n == 150 for row in found.accuracy for each in row)
    clean = [float((model(x).argmax(1) == y).float().mean()) for model in models.values()]
    assert [each.value for each in found.clean_accuracy] == pytest.approx(clean) and max(clean) < 1


@pytest.mark.slow
def test_the_diagonal_is_what_evaluate_gives() -> None:
    data = blobs(90)
    models = {"a": mlp(6, 3, seed=1), "b": linear(6, 3, seed=2), "c": mlp(6, 3, seed=3, norm=True)}
    found = transfer(models, data, THREAT, QUICK, seed=5)
    for i, model in enumerate(models.values()):
        outcome = evaluate(model, data, THREAT, QUICK, seed=5)
        assert found.accuracy[i][i] == outcome.robust_accuracy and found.clean_accuracy[i] == outcome.clean_accuracy
        assert found.environment["data"] == outcome.environment["data"]
    assert (found.suite, found.threat, found.n) == ("pgd", "Linf:0.06", 90) and found.note.startswith(QUICK.note)


@pytest.mark.slow
def test_equal_networks_are_equal_and_the_worst_is_the_worst() -> None:
    x = uniform(100, 6)
    y = linear(6, 3, seed=1)(x).argmax(1)
    models = {"a": linear(6, 3, seed=1), "again": linear(6, 3, seed=1), "other": linear(6, 3, seed=2)}
    found = transfer(models, (x, y), THREAT, QUICK)
    matrix = values(found)
    assert matrix[0] == matrix[1] and [row[0] for row in matrix] == [row[1] for row in matrix]
    for j, worst in enumerate(found.worst):
        assert worst.value <= min(row[j] for row in matrix)
    assert found.worst[0].value == matrix[0][0] < matrix[2][0] and found.clean_accuracy[0].value == 1


@pytest.mark.slow
def test_the_worst_counts_an_example_once_for_all_sources() -> None:
    """Each source moves one half of the examples over the target's boundary: none of the target stands."""

    def source(half: int) -> nn.Module:
        def logits(x: Inputs) -> Logits:
            push = torch.where((x[:, 1] > 0.5) == bool(half), x[:, 0], -x[:, 0])
            return torch.stack([-push, push - 0.2], dim=1)

        return Function(logits)

    def hidden(x: Inputs) -> Logits:
        """Wrong above 0.56, without a slope that would say so."""
        wrong = (x[:, 0] > 0.56).float()
        return torch.stack([1 - 2 * wrong, 2 * wrong - 1], dim=1) + 0 * x[:, :2]

    x = torch.full((40, 2), 0.5)
    x[:, 1] = torch.where(torch.arange(40) < 20, 0.1, 0.9)
    models = {"low": source(0), "high": source(1), "hidden": Function(hidden)}
    quick = Threat("Linf", 0.06 + 1e-3)
    found = transfer(models, (x, torch.zeros(40, dtype=torch.int64)), quick, QUICK)
    assert [row[2] for row in values(found)][:2] == [0.5, 0.5] and found.worst[2].value == 0


@pytest.mark.slow
def test_what_is_barely_wrong_goes_on_to_what_is_as_wrong_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two similar networks the points that stop at the source's boundary leave the target standing."""
    x, near = uniform(200, 8), linear(8, 2, seed=1)
    far = linear(8, 2, seed=1)
    with torch.no_grad():
        far.weight.add_(0.4 * torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
        far.bias.copy_(-far.weight.sum(1) / 2)
    y = near(x).argmax(1)
    threat = Threat("Linf", 0.1)
    full = transfer({"near": near, "far": far}, (x, y), threat, QUICK)
    monkeypatch.setattr(module, "FURTHER", QUICK.attacks[0])
    stopped = transfer({"near": near, "far": far}, (x, y), threat, QUICK)
    assert full.accuracy[0][0] == stopped.accuracy[0][0] and full.accuracy[1][1] == stopped.accuracy[1][1]
    assert full.accuracy[0][1].value < stopped.accuracy[0][1].value - 0.02


# What is not known, and what is not correct


def test_what_is_not_finite_is_unknown_and_never_correct() -> None:
    """The target has no finite value away from x where the first feature is large, and is right elsewhere."""
    x, source = uniform(80, 6), linear(6, 2, seed=1)
    y = source(x).argmax(1)

    def unsound(z: Inputs) -> Logits:
        moved = ((z - x[:, None].expand(-1, 1, -1).reshape(-1, 6)[None, :, :].squeeze(0)[:, None]).abs().amax(2)).amin(
            0
        )
        lost = (moved > 1e-6) & (z[:, 0] > 0.5)
        right = 10.0 * (2 * nn.functional.one_hot(source(z).argmax(1), 2) - 1) + 0 * z[:, :2]
        return torch.where(lost[:, None], torch.nan, right)

    found = transfer({"source": source, "target": Function(unsound)}, (x, y), Threat("Linf", 1e-3), QUICK)
    lost = int((x[:, 0] > 0.5).sum())
    entry = found.accuracy[0][1]
    assert 20 < lost < 60 and abs(entry.value - (80 - lost) / 80) < 0.03
    correct = round(80 * entry.value)
    assert (
        entry.high == pytest.approx(wilson(correct + lost, 80).high, abs=0.02) and entry.low == wilson(correct, 80).low
    )
    assert found.clean_accuracy[1].value == 1 and found.worst[1].value <= entry.value


def test_a_network_that_is_never_finite_is_nowhere_correct() -> None:
    data = blobs(30, classes=2)
    broken = Function(lambda x: x[:, :2] * torch.nan)
    found = transfer({"fine": linear(6, 2), "nan": broken}, data, THREAT, QUICK)
    for each in (found.clean_accuracy[1], found.accuracy[0][1], found.accuracy[1][1], found.worst[1]):
        assert (each.value, each.low, each.high) == (0.0, 0.0, 1.0)
    assert found.accuracy[1][0].value == found.clean_accuracy[0].value, (
        "points of a network without values are the inputs"
    )


def test_a_tie_is_not_correct() -> None:
    data = uniform(20, 6), torch.zeros(20, dtype=torch.int64)
    found = transfer({"a": linear(6, 2), "tied": Function(lambda x: 0 * x[:, :2])}, data, THREAT, QUICK)
    assert found.accuracy[0][1].value == found.clean_accuracy[1].value == 0 and found.accuracy[0][1].high < 0.2


# Surroundings


def test_precisions_mix_and_points_stay_inside() -> None:
    """0.3 is another number in float32: a point at the float32 box must not fall out of the float64 one."""
    x = uniform(40, 6, low=0.1, high=0.3)
    threat = Threat("Linf", 0.05, (0.1, 0.3))
    single, double = linear(6, 2, seed=1), linear(6, 2, seed=1).double()
    with torch.no_grad():
        for model in (single, double):
            model.bias.copy_(-0.2 * model.weight.sum(1))
    y = single(x).argmax(1)
    found = transfer({"single": single, "double": double}, (x, y), threat, QUICK)
    matrix = values(found)
    assert matrix[0] == pytest.approx(matrix[1], abs=0.03) and 0.05 < matrix[0][0] < 0.9
    assert all(each.high == wilson(round(40 * each.value), 40).high for row in found.accuracy for each in row)


@pytest.mark.slow
def test_networks_and_random_state_stay_as_they_were() -> None:
    data, a, b = blobs(40), mlp(6, 3, seed=1, dropout=0.5, norm=True), mlp(6, 3, seed=2, dropout=0.5)
    with untouched(a.train(), data[0]), untouched(b.train()):
        found = transfer({"a": a, "b": b}, data, THREAT, QUICK)
    torch.rand(3)
    again = transfer({"a": a, "b": b}, data, THREAT, QUICK)
    assert found.json() | {"seconds": 0} == again.json() | {"seconds": 0} and found.warnings == ()


@pytest.mark.long
@pytest.mark.slow
def test_blocks_do_not_matter_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    models, data = {"a": mlp(6, 3, seed=1), "b": mlp(6, 3, seed=2)}, blobs(50)
    whole = transfer(models, data, THREAT, QUICK, batch_size=16)
    monkeypatch.setattr(measurement, "BLOCK", 20)
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", 1e6)
    told: list[tuple[float, float, str]] = []
    parts = transfer(models, data, THREAT, QUICK, batch_size=16, progress=lambda *words: told.append(words))
    assert parts.accuracy == whole.accuracy and parts.worst == whole.worst
    ends = [done for done, _, text in told if text.startswith("attacked")]
    assert ends == [10, 20, 30, 40, 45, 50] and sorted(told) == told


def test_a_network_that_draws_random_numbers_is_told() -> None:
    noisy = Function(lambda x: x[:, :3] + 0.1 * torch.randn(len(x), 3))
    found = transfer({"a": mlp(6, 3), "b": noisy}, blobs(20), THREAT, QUICK)
    assert any(text.startswith("b: ") and "single draw" in text for text in found.warnings)


@pytest.mark.parametrize(("models", "suite", "message"), [
    ({"a": linear(6, 3)}, QUICK, "two or more, not 1"),
    ({"a": linear(6, 3), "b": linear(6, 3)}, RAND, "means over draws"),
    ({"a": linear(6, 3), "b": linear(6, 3)}, "pdg", "There is no suite 'pdg'. Did you mean 'pgd'"),
    ({"a": linear(6, 3), "b": linear(5, 3)}, QUICK, "fails on an input"),
    ({"a": linear(6, 3), "b": linear(6, 2)}, QUICK, "Labels range from 0 to 2"),
])  # fmt: skip
def test_bad_input_is_told(models: dict[str, nn.Module], suite: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        transfer(models, blobs(20), THREAT, suite)  # type: ignore[arg-type]


# Kept, and gone on with


class Stopped(Exception):
    """Somebody pulled the plug."""


def three() -> dict[str, nn.Module]:
    return {"a": mlp(6, 3, seed=1), "b": linear(6, 3, seed=2), "c": mlp(6, 3, seed=3)}


def same_files(one: Path, other: Path) -> None:
    parts = sorted(path.name for path in one.glob("part-*"))
    assert len(parts) == 27 and parts == sorted(path.name for path in other.glob("part-*")), "3 x 3 parts of 3 files"
    for name in (name for name in parts if name.endswith("parquet")):
        assert repr(parquet.read_table(one / name).to_pydict()) == repr(parquet.read_table(other / name).to_pydict())
        points = [load_file((folder / name).with_suffix(".safetensors"))["adversarial"] for folder in (one, other)]
        assert torch.equal(*points)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("step", ["attack_block", "_at"])
@pytest.mark.parametrize("at", first(1, (5, 0, 10, 15)))
def test_an_interrupted_matrix_goes_on_where_it_stopped(
    step: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 of each: attacks (2 on 3 models in 3 blocks), and looks at another's points (2 others, likewise)."""
    monkeypatch.setattr(measurement, "BLOCK", 20)
    place = block if step == "attack_block" else module
    data, run, calls = blobs(50), getattr(place, step), list[int]()

    def stopping(*words: Any) -> Any:
        calls.append(1)
        if len(calls) == at + 1:
            raise Stopped
        return run(*words)

    whole = transfer(three(), data, THREAT, QUICK, out=tmp_path / "whole")
    monkeypatch.setattr(place, step, stopping)
    with pytest.raises(Stopped):
        transfer(three(), data, THREAT, QUICK, out=tmp_path / "stopped")
    assert not (tmp_path / "stopped/transfer.json").exists()
    found = transfer(three(), data, THREAT, QUICK, out=tmp_path / "stopped")
    assert found.json() | {"seconds": 0} == whole.json() | {"seconds": 0} and found.seconds > 0
    same_files(tmp_path / "whole/transfer", tmp_path / "stopped/transfer")
    assert len(calls) <= 18 + (1 if step == "attack_block" else 2), "no more than one is done twice"
    assert read_verified(tmp_path / "stopped/transfer.json") == found.json()


@pytest.mark.slow
def test_the_tables_say_how_each_model_stands(tmp_path: Path) -> None:
    found = transfer(three(), blobs(50), THREAT, QUICK, out=tmp_path)
    for i, row in enumerate(values(found)):
        table = parquet.read_table(tmp_path / f"transfer/part-0000{i}.parquet").to_pydict()
        assert [table[f"on {name}"].count("correct") / 50 for name in "abc"] == row
        assert table["verdict"].count("survived") / 50 == row[i]


@pytest.mark.long
@pytest.mark.slow
def test_warnings_are_kept_and_name_the_model(tmp_path: Path) -> None:
    """Above 0.7 the first feature makes the network raise, even alone."""

    def picky(z: Inputs) -> Logits:
        if bool((z[:, 0] > 0.7).any()):
            raise RuntimeError("too much")
        return z[:, :3]

    models = {"fine": linear(6, 3), "picky": Function(picky)}
    found = transfer(models, blobs(50), THREAT, QUICK, out=tmp_path)
    assert any(text.startswith("picky: ") and "too much" in text for text in found.warnings)
    assert not any("fine: " in text for text in found.warnings)
    *kept, last = transfer(models, blobs(50), THREAT, QUICK, out=tmp_path).warnings
    assert tuple(kept) == found.warnings and last.startswith("Loaded from")


@pytest.mark.long
@pytest.mark.slow
def test_the_order_of_the_split_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "BLOCK", 20)
    data, order = array_split(*blobs(50)), torch.randperm(50, generator=torch.Generator().manual_seed(0))
    one, other = (transfer(three(), split, THREAT, QUICK) for split in (data, select(data, order)))
    assert one.accuracy == other.accuracy and one.clean_accuracy == other.clean_accuracy and one.worst == other.worst


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("change", "difference"), first(2, [
    ({"models": {"a": mlp(6, 3, seed=1), "b": linear(6, 3, seed=2)}}, r"models was \['a', 'b', 'c'\], now"),
    ({"models": three() | {"b": linear(6, 3, seed=9)}}, "weights of b was"),
    ({"threat": Threat("Linf", 0.05)}, "threat was Linf:0.06, now Linf:0.05"),
    ({"data": blobs(50, seed=1)}, "data was"),
    ({"seed": 1}, "seed was 0, now 1"),
    ({"suite": Suite("pgd", QUICK.attacks[:1], "shorter")}, "attacks of a was"),
    ({"suite": Suite("short", QUICK.attacks[:1], "shorter")}, r"\(suite was pgd, now short\)"),
]))  # fmt: skip
def test_another_matrix_is_refused_or_replaced(change: dict[str, Any], difference: str, tmp_path: Path) -> None:
    given = {"models": three(), "data": blobs(50), "threat": THREAT, "suite": QUICK}
    transfer(**given, out=tmp_path)
    with pytest.raises(InputError, match=difference):
        transfer(**given | change, out=tmp_path)
    replaced = transfer(**given | change, out=tmp_path, overwrite=True)
    assert replaced.json() | {"seconds": 0} == transfer(**given | change).json() | {"seconds": 0}
    assert len(list((tmp_path / "transfer").glob("part-*.json"))) == len(replaced.names)
