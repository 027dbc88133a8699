"""A measured choice is part of the run: recorded, kept on resuming, and without a trace in network and method."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.examples import network
from support.toys import Stopped, equal, state, stop_at
from unperturbed import runs
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.dale import DALELaplacian
from unperturbed.methods.free import Free
from unperturbed.networks.precision import Precision
from unperturbed.networks.settings import Layout
from unperturbed.networks.tuning import Clock, Trial, Tuned
from unperturbed.threat import Threat
from unperturbed.training import loop
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.trained import Trained

THREAT = Threat("Linf", 0.1)
LAST = Precision("32-true", torch.channels_last, torch.float32)


def images() -> Any:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(40, 2, 4, 4, generator=draw), torch.arange(40) % 3


def run(method: Method | None = None, out: Path | None = None, resume: bool = False, **settings: Any) -> Trained:
    recipe = Recipe(3, 16, checkpoint_minutes=0.0, precision="32", validation=0.2, **settings)
    return train(network("norm"), images(), THREAT, method or AT(PGD(2)), recipe, out=out, resume=resume)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a thousandth of a second later, so that all ways take as long."""
    ticks = iter(range(10**9))
    clock = Clock(lambda: 0.0, lambda: next(ticks) * 1e-3)
    monkeypatch.setattr(Clock, "of", lambda device: clock)


def measured(monkeypatch: pytest.MonkeyPatch, way: Precision, **seconds: float) -> None:
    trials = tuple(Trial(name, value) for name, value in seconds.items())
    monkeypatch.setattr(loop, "tune_training", lambda engine: Tuned(way, trials))


def refuse(engine: object) -> Any:
    raise AssertionError("measured a second time")


def chosen(folder: Path) -> dict[str, Any]:
    choices: dict[str, Any] = runs.read_yaml(folder / runs.CONFIG)["chosen"]
    return choices


def test_the_choice_and_its_times_are_recorded_and_equal_that_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, LAST, plain=2e-3, last=1e-3)
    tuned = run(out=tmp_path / "tuned", tune=5.0)
    choices = chosen(tmp_path / "tuned")
    assert choices["channels_last"] is True and choices["compiled"] is False
    assert choices["tuning"] == {"plain": 2000.0, "last": 1000.0}
    by_hand = run(out=tmp_path / "hand", layout="channels-last")
    assert chosen(tmp_path / "hand") == choices | {"tuning": None}
    assert equal(state(tuned.model), state(by_hand.model))


@pytest.mark.slow
def test_a_resumed_run_keeps_the_choice_and_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, LAST, plain=2e-3)
    straight = run(out=tmp_path / "straight", tune=5.0)
    recipe = Recipe(3, 16, checkpoint_minutes=0.0, precision="32", validation=0.2, tune=5.0)
    with pytest.raises(Stopped):
        train(
            network("norm"), images(), THREAT, AT(PGD(2)), recipe, out=tmp_path / "stopped", progress=stop_at(3)
        )  # fmt: skip
    monkeypatch.setattr(loop, "tune_training", refuse)
    resumed = run(out=tmp_path / "stopped", resume=True, tune="auto")  # another request changes nothing
    assert chosen(tmp_path / "stopped") == chosen(tmp_path / "straight")
    assert equal(state(resumed.model), state(straight.model))


def test_a_run_that_began_by_the_rule_is_not_measured_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "tune_training", refuse)
    run(out=tmp_path / "run")
    run(out=tmp_path / "run", resume=True, tune=5.0)
    assert chosen(tmp_path / "run")["tuning"] is None


@pytest.mark.parametrize("layout", ["auto", "channels-last", "contiguous"])
def test_the_layout_by_hand_is_that_of_the_weights(layout: Layout, tmp_path: Path) -> None:
    formats = list[bool]()

    def look(finished: float, total: float, text: str) -> None:
        formats.append(model[0].weight.is_contiguous(memory_format=torch.channels_last))

    model: Any = network("norm")
    recipe = Recipe(1, 16, precision="32", validation=0.2, layout=layout)
    train(model, images(), THREAT, AT(PGD(1)), recipe, progress=look)
    assert set(formats) == {layout == "channels-last"}


METHODS: dict[str, Callable[[], Method]] = {
    "at": lambda: AT(PGD(2)),
    "free": lambda: Free(),
    "awp, dale": lambda: AWP(DALELaplacian()),
    "cure": lambda: CURE(),
}


@pytest.mark.slow
@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("name", METHODS)
def test_measuring_leaves_no_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways take as long, so the rule stays: the run has the bits of one that measured nothing."""

    def unavailable(network: nn.Module) -> nn.Module:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", unavailable)
    with torch.random.fork_rng():
        untuned = run(METHODS[name]())
        tuned = run(METHODS[name](), tune=1e3)
    assert equal(state(tuned.model), state(untuned.model))


@pytest.mark.slow
@pytest.mark.usefixtures("ticking")
def test_a_candidate_that_fails_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(network: nn.Module) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("aot_autograd does not currently support double backward")

        return call

    monkeypatch.setattr(torch, "compile", unavailable)
    run(out=tmp_path / "run", tune=1e3)
    choices = chosen(tmp_path / "run")
    reason = "failed: RuntimeError: aot_autograd does not currently support double backward"
    assert choices["compiled"] is False
    assert choices["tuning"].pop("float32, contiguous, compiled") == reason
    assert set(choices["tuning"]) == {"float32, contiguous", "float32, channels-last"}
    assert all(value > 0 for value in choices["tuning"].values())


@pytest.mark.usefixtures("ticking")
def test_a_short_run_is_not_tuned_by_default_nor_by_auto(tmp_path: Path) -> None:
    for tune in ("off", "auto"):
        run(out=tmp_path / tune, tune=tune)
        assert chosen(tmp_path / tune)["tuning"] is None


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_resumes_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, Precision("32-true", torch.channels_last, torch.float32, compiled=True), plain=1.0)
    straight = run(out=tmp_path / "straight", tune=5.0)
    recipe = Recipe(3, 16, checkpoint_minutes=0.0, precision="32", validation=0.2, tune=5.0)
    with pytest.raises(Stopped):
        train(
            network("norm"), images(), THREAT, AT(PGD(2)), recipe, out=tmp_path / "stopped", progress=stop_at(3)
        )  # fmt: skip
    torch._dynamo.reset()
    resumed = run(out=tmp_path / "stopped", resume=True, tune=5.0)
    assert equal(state(resumed.model), state(straight.model))
