import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from support.toys import QUICK, Stopped, blobs, equal, mlp, state, stop_at
from unperturbed import runs
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import EpochEnd, Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.elle import ELLE_A
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.fw_at import FWATAdapt
from unperturbed.methods.llr import LLR
from unperturbed.methods.sora import SORA
from unperturbed.methods.trades import TRADES
from unperturbed.noise import Noise
from unperturbed.runs import read_yaml
from unperturbed.runs.verify import read_sealed
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.training import checkpoint, engine, selection
from unperturbed.training.alarm import Alarm, Probe
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.schedule import learning_rate
from unperturbed.training.trained import Trained, at_chance
from unperturbed.types import Batch, Inner, Model, Terms

THREAT = Threat("Linf", 0.1)


@dataclass(frozen=True)
class Spy(ERM):
    """Training on clean inputs that remembers its batches and threats."""

    batches: list[Batch] = field(default_factory=list)
    threats: list[Threat] = field(default_factory=list)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        self.batches.append(batch)
        self.threats.append(threat)
        return super().loss(model, batch, inner, threat, noise)


def spied(recipe: Recipe, data: Any = None, **options: Any) -> Spy:
    spy = Spy()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine.Engine, "preflight", lambda *_: [])  # its step is no training
        train(options.pop("model", None) or mlp(6, 3), data or blobs(60), THREAT, spy, recipe, **options)
    return spy


def images(n: int = 60) -> Any:
    x, y = blobs(n, d=64)
    return x.reshape(n, 1, 8, 8), y


# What a run leaves behind


def test_a_run_learns_and_leaves_its_files(tmp_path: Path) -> None:
    model, folder = mlp(6, 3), tmp_path / "run"
    trained = train(model, blobs(150), Threat("Linf", 0.05), AT(), Recipe(epochs=6, lr=0.1), out=folder)
    assert trained.clean_accuracy.value > 0.9 and trained.robust_accuracy.value > 0.7
    assert trained.model is model and trained.folder == folder and trained.epochs == 6 and trained.warnings == ()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "config.yaml", "metrics.jsonl", "model.safetensors", "best.safetensors", "result.json", "checkpoints/last.pt"
    }  # fmt: skip
    assert read_sealed(folder / "result.json") == json.loads(json.dumps(trained.json()))
    assert trained.json()["run"] == str(folder) and trained.json()["validation_examples"] == 15
    lines = runs.read_jsonl(folder / runs.METRICS)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    best = lines[trained.best_epoch - 1]
    assert best["probe/many_steps"] == max(line["probe/many_steps"] for line in lines) == trained.robust_accuracy.value
    assert best["probe/clean"] == trained.clean_accuracy.value and best["probe/n"] == 15
    assert equal(state(model), load_file(folder / runs.BEST))
    outcome = evaluate(model, blobs(60, seed=3), Threat("Linf", 0.05), QUICK)
    assert outcome.robust_accuracy.value > 0.6


def test_without_a_folder_the_result_is_the_same(tmp_path: Path) -> None:
    one, other = mlp(6, 3), mlp(6, 3)
    train(one, blobs(90), THREAT, AT(), Recipe(epochs=3))
    train(other, blobs(90), THREAT, AT(), Recipe(epochs=3), out=tmp_path / "run")
    assert equal(state(one), state(other))


def test_one_seed_one_result() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = mlp(6, 3, dropout=0.3)
        train(model, blobs(60), THREAT, AT(), Recipe(epochs=5, lr=0.05, seed=seed))
        return state(model)

    assert equal(weights(4), weights(4)) and not equal(weights(4), weights(5))


def test_the_metrics_say_what_a_step_did(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, ramp=0.6, lr=0.01, schedule="cosine", batch_size=16)
    spy = spied(recipe, out=tmp_path / "run")
    lines = runs.read_jsonl(tmp_path / "run/metrics.jsonl")
    steps = lines[-1]["step"]
    assert steps == len(spy.threats) == 12
    assert [threat.eps for threat in spy.threats] == pytest.approx([0.1 * min(1, k / 12 / 0.6) for k in range(12)])
    assert [line["eps"] for line in lines] == pytest.approx([0.1 * min(1, k / 4 / 0.6) for k in range(1, 5)])
    last_steps = [line["step"] - 1 for line in lines]
    assert [line["lr"] for line in lines] == pytest.approx([0.01 * learning_rate(recipe, s / 12) for s in last_steps])
    assert all(line["loss"] == pytest.approx(line["clean"]) for line in lines)
    assert lines[0]["seconds"] < lines[-1]["seconds"]


@pytest.mark.parametrize(("method", "ramp"), [(ERM(), 0.0), (AT(), 0.25), (TRADES(), 0.25)])
def test_methods_ramp_eps_by_themselves(method: Method, ramp: float, tmp_path: Path) -> None:
    train(mlp(6, 3), blobs(60), THREAT, method, Recipe(epochs=8), out=tmp_path / "run")
    first = runs.read_jsonl(tmp_path / "run/metrics.jsonl")[0]["eps"]
    assert first == pytest.approx(0.1 if ramp == 0 else 0.1 * (1 / 8) / ramp)


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    spy, model = Spy(), mlp(6, 3)
    losses: list[float] = []

    class Recorded(Spy):
        def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
            terms = super().loss(model, batch, inner, threat, noise)
            losses.append(float(sum(terms.values()).detach()))
            return terms

    train(model, blobs(60), THREAT, Recorded(), Recipe(epochs=2, batch_size=18), out=tmp_path / "run")
    lines = runs.read_jsonl(tmp_path / "run/metrics.jsonl")
    _, *steps = losses  # the first is of the trial before the run
    assert [line["loss"] for line in lines] == pytest.approx([sum(steps[:3]) / 3, sum(steps[3:]) / 3])
    assert spy.batches == []


# Batches


def test_labels_are_smoothed_over_all_classes() -> None:
    batch = spied(Recipe(epochs=1, label_smoothing=0.3)).batches[0]
    expected = torch.full((len(batch.y), 3), 0.1)
    expected[torch.arange(len(batch.y)), batch.y] = 0.8
    torch.testing.assert_close(batch.targets, expected)
    plain = spied(Recipe(epochs=1)).batches[0]
    assert plain.targets is plain.y


def test_extra_data_joins_every_batch() -> None:
    more = blobs(40, seed=5)
    spy = spied(Recipe(epochs=2, batch_size=20, extra_ratio=0.25), extra=more)
    for batch in spy.batches:
        extra = batch.ids >= 60
        assert len(batch.ids) == 20 and int(extra.sum()) == 5
        assert torch.equal(batch.x[extra], more[0][batch.ids[extra] - 60])
        assert torch.equal(batch.y[extra], more[1][batch.ids[extra] - 60])
    assert len(spy.batches) == 2 * (54 // 15)


def test_augmentation_changes_from_step_to_step_and_keeps_to_the_bounds() -> None:
    x, _ = images()
    spy = spied(
        Recipe(epochs=6, batch_size=54, augment="flip"), images(), model=nn.Sequential(nn.Flatten(), mlp(64, 3))
    )
    views: dict[int, set[bool]] = {}
    for batch in spy.batches:
        for image, i in zip(batch.x, batch.ids.tolist(), strict=True):
            mirrored = not torch.equal(image, x[i])
            assert torch.equal(image, x[i].flip(-1)) or not mirrored
            views.setdefault(i, set()).add(mirrored)
    assert sum(len(seen) == 2 for seen in views.values()) > 40


class RecordingFree(Free):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Batch] = []

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        self.seen.append(batch)
        return super().loss(model, batch, inner, threat, noise)


def test_free_replays_the_very_same_batch_eight_times() -> None:
    """The augmented one: its perturbation is that of these pixels."""
    model = nn.Sequential(nn.Flatten(), mlp(64, 3))
    recipe = Recipe(epochs=8, batch_size=18, augment="crop")
    method = train(model, images(), THREAT, RecordingFree(), recipe).method
    assert isinstance(method, RecordingFree)
    assert len(method.seen) == 24
    for turn in range(3):
        replayed = method.seen[8 * turn : 8 * turn + 8]
        assert all(torch.equal(b.x, replayed[0].x) and torch.equal(b.ids, replayed[0].ids) for b in replayed)
    assert len(torch.cat([method.seen[8 * turn].ids for turn in range(3)]).unique()) == 54


def test_inputs_are_clamped_against_rounding() -> None:
    x, y = blobs(60)
    x[0, 0], x[1, 1] = 1 + 5e-7, -5e-7
    spy = spied(Recipe(epochs=1, validation=0.0, batch_size=60), (x, y))
    assert float(spy.batches[0].x.min()) >= 0 and float(spy.batches[0].x.max()) <= 1


# Weights


def test_the_average_is_the_one_kept_by_hand(tmp_path: Path) -> None:
    model, decay = mlp(6, 3, norm=True), 0.8
    average: dict[str, torch.Tensor] = {}

    def keep(done: float, total: float, text: str) -> None:
        for name, value in state(model).items():
            if name not in average or not value.is_floating_point():
                average[name] = value
            else:
                average[name] = decay * average[name] + (1 - decay) * value

    recipe = Recipe(epochs=3, averaging=decay, validation=0.2)
    train(model, blobs(90), THREAT, AT(PGD(2)), recipe, out=tmp_path / "run", progress=keep)
    last = load_file(tmp_path / "run/model.safetensors")
    for name in (name for name, value in last.items() if value.is_floating_point()):
        torch.testing.assert_close(last[name], average[name], msg=name)
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert not equal(checkpoint["model"], last)  # the weights themselves are further on


def test_best_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second epoch is said to be the best one."""
    results = iter([0.2, 0.6, 0.6, 0.4])
    monkeypatch.setattr(selection, "probe", lambda *_: Probe(0.9, 0.9, 0.7, next(results), 1.0, 9))
    model = mlp(6, 3)
    after: list[dict[str, torch.Tensor]] = []
    trained = train(
        model, blobs(60), THREAT, ERM(), Recipe(epochs=4, batch_size=54), out=tmp_path / "run",
        progress=lambda *_: after.append(state(model)),
    )  # fmt: skip
    assert trained.best_epoch == 2 and trained.robust_accuracy.value == pytest.approx(5 / 9)
    assert equal(load_file(tmp_path / "run/best.safetensors"), after[1]) and equal(state(model), after[1])
    assert equal(load_file(tmp_path / "run/model.safetensors"), after[3]) and not equal(after[1], after[3])


@pytest.mark.parametrize(
    ("meets", "best"),
    [((False, False, True, True), 3), ((False, True, False, False), 2), ((False,) * 4, 1), ((True,) * 4, 1)],
)
def test_weights_that_meet_a_limit_are_kept_before_more_robust_ones(
    meets: tuple[bool, ...], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, answers = iter([0.8, 0.3, 0.6, 0.4]), iter(meets)
    monkeypatch.setattr(selection, "probe", lambda *_: Probe(0.9, 0.9, 0.7, next(results), 1.0, 9))

    class Demanding(ERM):
        def feasible(self) -> bool:
            return next(answers)

    model = mlp(6, 3)
    after: list[dict[str, torch.Tensor]] = []
    recipe = Recipe(epochs=4, batch_size=54)
    trained = train(model, blobs(60), THREAT, Demanding(), recipe, progress=lambda *_: after.append(state(model)))
    assert trained.best_epoch == best and equal(state(model), after[best - 1])


def test_training_begins_with_given_weights(tmp_path: Path) -> None:
    given = mlp(6, 3, seed=7)
    save_file(state(given), tmp_path / "given.safetensors")
    model = mlp(6, 3)
    first: list[dict[str, torch.Tensor]] = []
    recipe = Recipe(epochs=1, schedule="constant", lr=1e-9)
    train(model, blobs(60), THREAT, ERM(), recipe, weights=tmp_path / "given.safetensors",
          progress=lambda *_: first.append(state(model)))  # fmt: skip
    assert all(torch.allclose(first[0][name], value, atol=1e-6) for name, value in state(given).items())
    with pytest.raises(InputError):
        train(mlp(6, 4), blobs(60), THREAT, ERM(), recipe, weights=tmp_path / "given.safetensors", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Outputs(ERM):
    """Remembers the type of the logits that the loss gets."""

    seen: list[torch.dtype] = field(default_factory=list)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        self.seen.append(model(batch.x).dtype)
        return super().loss(model, batch, inner, threat, noise)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64", torch.float64), ("bf16", torch.float32), ("32", torch.float32)]
)
def test_precision(precision: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model = mlp(6, 3)
    inside: list[torch.dtype] = []
    handle = model[0].register_forward_hook(
        lambda module, x, y: inside.append(y.dtype) if module.training and len(y) > 2 else None
    )
    trained = train(model, blobs(60), THREAT, AT(), Recipe(epochs=2, precision=precision), out=tmp_path / "run")
    handle.remove()
    assert set(inside) == {torch.bfloat16 if precision == "bf16" else dtype}
    spy = Outputs()
    train(mlp(6, 3), blobs(60), THREAT, spy, Recipe(epochs=1, precision=precision))
    assert set(spy.seen) == {dtype}, "logits come in the type of the inputs"
    assert model[0].weight.dtype == dtype == load_file(tmp_path / "run/best.safetensors")["0.weight"].dtype
    assert evaluate(trained.model, blobs(20), THREAT, QUICK).environment["precision"] == str(dtype).split(".")[1]


class Named(nn.Module):
    """Returns its logits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(6, 3)

    def forward(self, x: torch.Tensor) -> object:
        return {"logits": self.inner(x)}


@pytest.mark.parametrize("averaging", [None, 0.5])
def test_a_model_with_named_logits_is_trained_and_kept_under_its_own_names(
    averaging: float | None, tmp_path: Path
) -> None:
    model, plain = Named(), mlp(6, 3)
    recipe = Recipe(epochs=2, averaging=averaging)
    train(model, blobs(60), THREAT, AT(), recipe, out=tmp_path / "run")
    train(plain, blobs(60), THREAT, AT(), recipe)
    assert equal(state(model.inner), state(plain))
    assert set(load_file(tmp_path / "run/best.safetensors")) == set(model.state_dict())


# Ends


def test_patience(tmp_path: Path) -> None:
    recipe = Recipe(epochs=9, patience=2, lr=1e-9, schedule="constant")
    trained = train(mlp(6, 3), blobs(60), THREAT, ERM(), recipe, out=tmp_path / "run")
    assert trained.epochs == 3 and trained.best_epoch == 1

    class Later(ERM):
        """Meets its limit in the fifth epoch."""

        def feasible(self) -> bool:
            epochs.append(1)
            return len(epochs) == 5

    epochs: list[int] = []
    later = train(mlp(6, 3), blobs(60), THREAT, Later(), recipe)
    assert later.epochs == 7 and later.best_epoch == 5, "it does not stop before there are such weights"
    assert len(runs.read_jsonl(tmp_path / "run/metrics.jsonl")) == 3


def test_patience_begins_after_the_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the full eps of the probe, epochs at a small one look alike, and so may all of them."""
    monkeypatch.setattr(selection, "probe", lambda *_: Probe(0.9, 0.9, 0.1, 0.0, 3.0, 6))
    recipe = Recipe(epochs=10, patience=2, ramp=0.5)
    trained = train(mlp(6, 3), blobs(60), THREAT, AT(PGD(1)), recipe)
    assert trained.epochs == 7 and trained.best_epoch == 1


def test_text_in_place_of_a_method_is_refused() -> None:
    with pytest.raises(InputError, match="method is 'at'"):
        train(mlp(6, 3), blobs(30), THREAT, "at", Recipe(epochs=1))  # type: ignore[arg-type]


def test_a_run_that_learns_nothing_says_so() -> None:
    """The first step of one cycle has the rate 0."""
    model, before = mlp(6, 3), state(mlp(6, 3))
    trained = train(model, blobs(30), THREAT, ERM(), Recipe(epochs=1, batch_size=27))
    assert equal(state(model), before) and any("nothing is learned" in text for text in trained.warnings)
    longer = (Recipe(epochs=2, batch_size=27), Recipe(epochs=1, batch_size=27, schedule="constant"))
    for recipe in longer:
        assert train(mlp(6, 3), blobs(30), THREAT, ERM(), recipe).warnings == ()


class Unsound(nn.Module):
    """Returns NaN for the example that is marked with x_0 = 1, in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(x)
        return torch.where((x[:, :1] == 1) & torch.tensor(self.training), torch.nan, logits)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_ids_and_the_weights_as_they_were(tmp_path: Path) -> None:
    x, y = blobs(60)
    x = x.clamp(0, 0.99)
    x[17, 0] = 1.0
    model, after = Unsound(), [state(Unsound())]
    with pytest.raises(RunError, match=r"Step \d+: The loss is not finite .*on the examples \[.*\b17\b.*\]") as raised:
        train(model, (x, y), THREAT, ERM(), Recipe(epochs=1, batch_size=6, validation=0.0, schedule="constant"),
              out=tmp_path / "run", progress=lambda *_: after.append(state(model)))  # fmt: skip
    assert str(raised.value).startswith(f"Step {len(after)}:")
    assert equal(state(model), after[-1])


# The alarm


def scripted(monkeypatch: pytest.MonkeyPatch, *epochs: int, too_weak: bool = True) -> list[int]:
    """Let the alarm recognise something after these epochs; return the steps of the maximisers that are used."""
    used: list[int] = []
    step = engine.optimisation_step

    def watched(*arguments: Any) -> Any:
        used.append(arguments[4].maximiser.steps)
        return step(*arguments)

    trouble = Alarm("Trouble.", too_weak)
    monkeypatch.setattr(selection, "recognise", lambda probes, losses: trouble if len(probes) in epochs else None)
    monkeypatch.setattr(engine, "optimisation_step", watched)
    return used


def alarmed(alarm: Any, out: Path | None = None, **options: Any) -> Trained:
    recipe = Recipe(epochs=5, alarm=alarm, batch_size=27, ramp=options.pop("ramp", 0.0))
    return train(options.pop("model", None) or mlp(6, 3), blobs(60), THREAT, AT(PGD(2)), recipe, out=out, **options)


def test_the_alarm_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    used = scripted(monkeypatch, 2, 4)
    trained = alarmed("warn")
    assert trained.warnings == ("Epoch 2: Trouble.", "Epoch 4: Trouble.") and used == [2] * 10


def test_the_alarm_is_silent_when_off_and_while_eps_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 2, 4)
    assert alarmed("off").warnings == ()
    assert alarmed("warn", ramp=0.5).warnings == ("Epoch 4: Trouble.",)


def test_the_alarm_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripted(monkeypatch, 3)
    trained = alarmed("stop", tmp_path / "run")
    assert trained.epochs == 3 and trained.warnings == ("Epoch 3: Trouble.",)
    again = alarmed("stop", tmp_path / "run", resume=True)
    assert again.epochs == 3 and again.warnings == trained.warnings


def test_the_alarm_adds_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    used = scripted(monkeypatch, 1, 3)
    trained = alarmed("add-steps")
    assert used == [2] * 2 + [4] * 4 + [8] * 4
    assert [text for text in trained.warnings if "From epoch 2 on the method is AT(maximiser=PGD(steps=4" in text]


@pytest.mark.slow
def test_the_alarm_adds_steps_twice_at_most_and_only_where_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sounds to the end would otherwise double them every epoch, and announce more after the last one."""
    used = scripted(monkeypatch, 1, 2, 3, 4, 5)
    warnings = alarmed("add-steps").warnings
    assert used == [2] * 2 + [4] * 2 + [8] * 6
    assert sum("no more are added" in text for text in warnings) == 1 and not any("epoch 4 on" in t for t in warnings)
    used = scripted(monkeypatch, 5)
    assert not any("From epoch" in text for text in alarmed("add-steps").warnings) and used == [2] * 10
    used = scripted(monkeypatch, 1, 2, too_weak=False)
    assert alarmed("add-steps").warnings == ("Epoch 1: Trouble.", "Epoch 2: Trouble.") and used == [2] * 10


@pytest.mark.slow
def test_added_steps_stay_after_a_resume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    straight = mlp(6, 3)
    scripted(monkeypatch, 1, 3)
    warnings = alarmed("add-steps", model=straight).warnings
    used = scripted(monkeypatch, 1, 3)
    with pytest.raises(Stopped):
        alarmed("add-steps", tmp_path / "run", progress=stop_at(5))
    del used[:]
    model = mlp(6, 3, seed=9)
    trained = alarmed("add-steps", tmp_path / "run", resume=True, model=model)
    assert used == [4] * 2 + [8] * 4
    assert equal(state(model), state(straight)) and trained.warnings == warnings


def test_a_method_without_steps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "recognise", lambda probes, losses: Alarm("Trouble.", True))
    trained = train(mlp(6, 3), blobs(60), THREAT, ERM(), Recipe(epochs=2, alarm="add-steps"))
    assert any("ERM has no inner steps to add" in text for text in trained.warnings)


@pytest.mark.parametrize("make", [lambda: replace(AT(), maximiser=PGD(1)), Free, TRADES])
def test_the_alarm_lives_with_every_method(make: Callable[[], Method]) -> None:
    train(mlp(6, 3), blobs(60), THREAT, make(), Recipe(epochs=3, alarm="add-steps", ramp=0.0))


# What a method says of itself


@dataclass(frozen=True)
class Talker(ERM):
    """Looks at the network before the first step, and measures something every epoch."""

    refuse: bool = False
    looks: list[tuple[bool, int, float]] = field(default_factory=list)

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        model(batch.x)  # which moves batch norm's running averages
        torch.rand(())
        self.looks.append((model.training, len(batch.x), threat.eps))
        if self.refuse:
            raise RunError("not this network")
        return ["a word of caution"]

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, torch.Tensor]:
        assert not model.training and not any(weight.requires_grad for weight in model.parameters())
        return {"label": batch.y.double()}


def test_a_method_looks_at_the_network_before_the_first_step(tmp_path: Path) -> None:
    """In train mode, at full eps, on a few examples, and the run is the same as without that look."""
    method = Talker()
    trained = train(
        mlp(6, 3, norm=True, dropout=0.2), blobs(150), THREAT, method, Recipe(epochs=2), out=tmp_path / "run"
    )
    assert method.looks == [(True, 8, 0.1)]
    assert trained.warnings == ("a word of caution",)
    lines = runs.read_jsonl(tmp_path / "run" / runs.METRICS)
    assert all(0 <= line["method/label"] <= 2 for line in lines)
    silent = train(mlp(6, 3, norm=True, dropout=0.2), blobs(150), THREAT, ERM(), Recipe(epochs=2))
    assert equal(state(trained.model), state(silent.model))


@pytest.mark.parametrize("method", [LLR(), AWP(AT(PGD(1)))])
def test_a_method_looks_at_a_single_held_out_example_in_company(method: Method) -> None:
    """Batch norm in train mode cannot take one alone."""
    x, _ = blobs(10)
    y = torch.tensor([0] * 8 + [1] * 2)
    trained = train(mlp(6, 2, norm=True), (x, y), THREAT, method, Recipe(epochs=1, batch_size=4))
    assert trained.clean_accuracy.n == 1


def test_a_method_that_refuses_the_network_stops_the_run_before_it_changes(tmp_path: Path) -> None:
    model = mlp(6, 3, norm=True)
    before = state(model)
    with pytest.raises(RunError, match="not this network"):
        train(model, blobs(150), THREAT, Talker(refuse=True), Recipe(epochs=2), out=tmp_path / "run")
    assert equal(before, state(model))


# A method with memory


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constrained(AT(PGD(2)), nominal_loss=0.3),
        lambda: AWP(Constrained(ELLE_A(), method_loss=0.3)),
        ELLE_A,
        SORA,
        FWATAdapt,
        Free,
    ],
)
def test_each_run_begins_with_the_memory_that_the_method_was_given_with(make: Callable[[], Method]) -> None:
    """Two runs of one object end in the same bits, and leave it as it was; the result has it as it ended."""
    method, results = make(), []
    before = checkpoint.memory(method)
    for _ in range(2):
        trained = train(mlp(6, 3), blobs(60), THREAT, method, Recipe(epochs=2, batch_size=18))
        assert trained.method is not None
        results.append({**state(trained.model), **checkpoint.memory(trained.method)})
        after = checkpoint.memory(method)
        assert after.keys() == before.keys() and all(same(after[name], before[name]) for name in before)
        ended = checkpoint.memory(trained.method)
        assert not all(same(ended[name], before[name]) for name in before), "the memory has moved"
    first, second = results
    assert first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two tensors are the same, NaN where NaN is."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))


@dataclass(frozen=True)
class Concluding(ERM):
    def conclude(self) -> list[str]:
        return ["Done."]


@dataclass(frozen=True)
class Limited(Concluding):
    """Meets its limit in these epochs."""

    met: tuple[int, ...] = ()
    seen: list[float] = field(default_factory=list)

    def after_epoch(self, end: EpochEnd) -> None:
        self.seen.append(end.done)

    def feasible(self) -> bool:
        return len(self.seen) in self.met


@pytest.mark.parametrize(
    ("met", "feasible", "kept", "told"), [((1,), True, 1, "met"), ((), False, 2, "did not meet"), ((3,), True, 3, "")]
)
def test_the_result_says_whether_the_weights_kept_met_the_limit(
    met: tuple[int, ...], feasible: bool, kept: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = iter((0.4, 0.5, 0.1))
    monkeypatch.setattr(selection, "probe", lambda *_: Probe(0.9, 0.9, 0.9, next(probes), 1.0, 6))
    trained = train(mlp(6, 3), blobs(60), THREAT, Limited(met=met), Recipe(epochs=3))
    assert trained.best_epoch == kept and trained.feasible is feasible and trained.json()["feasible"] is feasible
    end = f" This is of the last epoch, 3; the weights kept are those of epoch {kept}, which {told} the limit."
    assert trained.conclusions == ("Done." + (end if kept < 3 else ""),)


@pytest.mark.parametrize("averaging", [None, 0.999])
def test_a_limit_on_a_loss_is_not_called_met_by_a_running_average(averaging: float | None) -> None:
    """The average lags behind: its loss is far beyond the limit that the weights as trained have met."""
    method = Constrained(ERM(), nominal_loss=0.3)
    recipe = Recipe(epochs=6, batch_size=10, lr=0.3, averaging=averaging, validation=0.5)
    trained = train(mlp(6, 3), blobs(120), THREAT, method, recipe)
    (text,) = trained.conclusions
    assert trained.method is not None
    measured = float(text.partition("held-out examples: nominal_loss ")[2].rstrip("."))
    if averaging is None:
        assert trained.feasible is True and text.startswith("Feasible: ") and measured < 0.5
    else:
        assert trained.feasible is None and text.startswith("Feasible before averaging: ") and measured > 0.6
        assert "whether it meets the limit is not known" in text


def test_a_limit_on_accuracy_is_judged_on_the_running_average() -> None:
    method = Constrained(ERM(), nominal_accuracy=0.9)
    trained = train(mlp(6, 3), blobs(120), THREAT, method, Recipe(epochs=2, batch_size=10, averaging=0.999))
    assert trained.feasible is (trained.clean_accuracy.value >= 0.9)
    assert f"of {trained.clean_accuracy.n} examples" in trained.conclusions[0]


@pytest.mark.parametrize(("validation", "held_out"), [(0.2, True), (0.0, False)])
def test_the_result_says_whether_its_examples_were_held_out(validation: float, held_out: bool, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, validation=validation)
    trained = train(mlp(6, 3), blobs(60), THREAT, Constrained(ERM()), recipe, out=tmp_path / "run")
    assert trained.held_out is held_out and trained.json()["held_out"] is held_out
    assert ("held-out" in trained.conclusions[0]) is held_out
    told = read_yaml(tmp_path / "run/config.yaml")["chosen"]["held_out_examples"]
    assert (told > 0) is held_out


@pytest.mark.parametrize("best", [1, 3])
def test_a_conclusion_says_which_epoch_it_is_of(best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = iter(range(1, 4))
    monkeypatch.setattr(
        selection, "probe", lambda *_: Probe(0.9, 0.9, 0.9, 0.5 if next(probes) == best else 0.1, 1.0, 6)
    )
    trained = train(mlp(6, 3), blobs(60), THREAT, Concluding(), Recipe(epochs=3))
    assert trained.best_epoch == best
    told = "" if best == 3 else " This is of the last epoch, 3; the weights kept are those of epoch 1."
    assert trained.conclusions == ("Done." + told,) and trained.feasible is None


@pytest.mark.parametrize(("right", "standing", "told"), [
    (52, 50, "clean and the robust"), (90, 50, "The robust"), (90, 0, None), (90, 80, None), (40, 0, "The clean"),
])  # fmt: skip
def test_a_run_that_ends_at_chance_says_so(right: int, standing: int, told: str | None) -> None:
    text = at_chance(wilson(right, 100), wilson(standing, 100), 2)
    assert text is None if told is None else told in str(text) and "chance (50%)" in str(text)


def test_a_run_that_learns_nothing_warns_of_chance() -> None:
    x = torch.rand(200, 6)
    labels = torch.arange(200) % 2  # which nothing in x tells
    trained = train(mlp(6, 2), (x, labels), THREAT, ERM(), Recipe(epochs=1, lr=1e-6, validation=0.3))
    assert any("told from chance (50%)" in text for text in trained.warnings)


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


def test_an_infinite_slope_at_zero_pixels_is_a_warning_and_no_end_of_the_run() -> None:
    x, y = blobs(60)
    x[:, :2] = 0.0
    model = nn.Sequential(Root(), mlp(6, 3))
    recipe = Recipe(epochs=1, batch_size=20, validation=0.0, alarm="off")
    trained = train(model, (x, y), THREAT, AT(PGD(steps=2, random_start=False)), recipe)
    (text,) = [text for text in trained.warnings if "not finite" in text]
    assert "`0` (Root)" in text and all(bool(weight.isfinite().all()) for weight in model.parameters())
