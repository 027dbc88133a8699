"""The searches of an evaluation run as measured, or as chosen by hand; the verdicts are those of the eager network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.examples import network
from support.toys import QUICK
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation import tuning
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.tuning import Way
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.networks.precision import InPrecision, Precision, choose
from unperturbed.networks.settings import Layout, Tuning
from unperturbed.networks.tuning import Clock, Trial, Tuned
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Model

THREAT = Threat("Linf", 0.03)
PLAIN = Precision("32-true", torch.contiguous_format, torch.float32)
LAST = Way(Precision("32-true", torch.channels_last, torch.float32), 16)


def examples() -> tuple[nn.Module, Any]:
    """Return a network and examples that it classifies correctly."""
    model: Any = network("norm").eval()
    x = torch.rand(40, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)  # else one class takes them all
    return model, (x, model(x).argmax(1))


def evaluated(request: Tuning, out: Path | None = None, suite: Suite = QUICK, **options: Any) -> Outcome:
    model, data = examples()
    return evaluate(model, data, THREAT, suite, out=out, tuning=request, precision="32", **options)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a thousandth of a second later, so that a step of any way takes as long."""
    ticks = iter(range(10**9))
    monkeypatch.setattr(Clock, "of", lambda device: Clock(lambda: 0.0, lambda: next(ticks) * 1e-3))


def measured(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    tuned = Tuned(way, (Trial("by the rule", 2e-3), Trial(str(way), 1e-3)))
    monkeypatch.setattr(tuning, "tune", lambda *_: tuned)


def refuse(*_: object) -> Any:
    raise AssertionError("measured a second time")


def compiling_to(monkeypatch: pytest.MonkeyPatch, function: Callable[[nn.Module, Tensor], Tensor]) -> list[int]:
    """Replace the compiler; return the batch sizes that run compiled."""
    sizes = list[int]()

    def compiled(network: nn.Module) -> Any:
        def call(x: Tensor) -> Tensor:
            sizes.append(len(x))
            return function(network, x)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    return sizes


def same(a: Outcome, b: Outcome) -> bool:
    assert a.counts["broken"] > 0
    if a.adversarial is None or b.adversarial is None:  # left in the folder
        return a.examples == b.examples
    return a.examples == b.examples and torch.equal(a.adversarial, b.adversarial)


def test_an_evaluation_without_a_request_is_recorded_as_before() -> None:
    assert not {"tuning", "compiled", "channels_last"} & evaluated(Tuning()).environment.keys()


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_the_layout_by_hand_is_that_of_the_searches(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = set[torch.memory_format]()
    forward = InPrecision.forward

    def noted(self: InPrecision, x: Tensor) -> Tensor:
        formats.add(self.memory_format)
        return forward(self, x)

    monkeypatch.setattr(InPrecision, "forward", noted)
    outcome = evaluated(Tuning(layout=layout))
    last = layout == "channels-last"
    assert outcome.environment["channels_last"] is last and outcome.environment["tuning"] == {}
    assert torch.channels_last in formats if last else torch.channels_last not in formats


@pytest.mark.slow
def test_a_compiled_search_runs_whole_batches_compiled_and_the_verification_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = compiling_to(monkeypatch, lambda network, x: network(x))
    compiled = evaluated(Tuning(compile=True), batch_size=16)
    assert set(sizes) == {16} and compiled.environment["compiled"] is True
    assert same(compiled, evaluated(Tuning(), batch_size=16))


def test_the_verdicts_are_those_of_the_eager_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network that is wrong everywhere has claims, and no breaks: they are refuted, and never robust."""
    compiling_to(monkeypatch, lambda network, x: -network(x))
    outcome = evaluated(Tuning(compile=True), batch_size=8)
    model, (x, y) = examples()
    broken = [row for row, verdict in enumerate(outcome.examples["verdict"]) if verdict == "broken"]
    assert (model(outcome.adversarial).argmax(1) != y[broken]).all()
    assert outcome.clean_accuracy.value == 1.0 and outcome.unverified > 0
    assert outcome.counts["survived"] + outcome.counts["broken"] + outcome.counts["unknown"] == len(x)
    assert outcome.counts["unknown"] > 0


class Twice(Attack):
    """Takes a second derivative."""

    label, restarts = "Twice", 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        x = batch.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x, create_graph=True)
        (curved,) = torch.autograd.grad(slope.square().sum(), x)
        assert curved.isfinite().all()
        z = threat.sample(batch.x, noise)
        with torch.no_grad():
            margins = margin(model(z), batch.y)
        return AttackResult(z, margins, torch.ones(len(z), dtype=torch.bool), torch.ones_like(batch.y), len(z))


def test_an_attack_that_fails_on_the_compiled_network_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(network: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("torch.compile with aot_autograd does not currently support double backward")

    sizes = compiling_to(monkeypatch, once)
    suite = Suite("twice", (Twice(),), "a test")
    compiled = evaluated(Tuning(compile=True), suite=suite, batch_size=64)
    assert sizes and compiled.counts["unknown"] == 0
    assert compiled.examples == evaluated(Tuning(), suite=suite, batch_size=64).examples


@pytest.mark.slow
def test_a_measured_choice_is_recorded_and_equals_that_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, LAST)
    tuned = evaluated(Tuning(5.0))
    assert tuned.environment["tuning"] == {"by the rule": 2000.0, str(LAST): 1000.0}
    assert (tuned.environment["channels_last"], tuned.environment["batch_size"]) == (True, 16)
    assert same(tuned, evaluated(Tuning(layout="channels-last"), batch_size=16))


@pytest.mark.long
@pytest.mark.slow
def test_a_resumed_evaluation_keeps_its_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, LAST)
    before = evaluated(Tuning(5.0), tmp_path)
    monkeypatch.setattr(tuning, "tune", refuse)
    for part in (tmp_path / "pgd").glob("part-*"):
        part.unlink()
    for request in (Tuning(5.0), Tuning(layout="contiguous", compile=True), Tuning()):
        again = evaluated(request, tmp_path)
        assert same(again, before) and again.environment == before.environment


@pytest.mark.slow
def test_an_evaluation_that_began_by_the_rule_resumes_by_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluated(Tuning(), tmp_path)
    monkeypatch.setattr(tuning, "tune", refuse)
    for part in (tmp_path / "pgd").glob("part-*"):
        part.unlink()
    again = evaluated(Tuning(5.0, "channels-last"), tmp_path)
    assert same(again, before) and "tuning" not in again.environment


@pytest.mark.slow
@pytest.mark.usefixtures("ticking")
def test_the_measurement_tries_layouts_sizes_and_a_compiled_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that counts looks, the largest batch has the shortest time an example; the compiler is missing."""

    def unavailable(network: nn.Module) -> nn.Module:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", unavailable)
    tuned = evaluated(Tuning(1e3))
    rule = replace(choose("auto", examples()[0], torch.device("cpu")), name="32-true")
    sizes = {"float32, contiguous, batches of 64", "float32, channels-last, batches of 64"}
    small, compiled = f"{rule}, batches of 32", f"{rule}, compiled, batches of 64"
    assert tuned.environment["tuning"].keys() == sizes | {small, compiled}
    assert tuned.environment["tuning"][compiled] == "failed: RuntimeError: no C++ compiler"
    assert tuned.environment["batch_size"] == 64 and tuned.environment["compiled"] is False
    assert same(tuned, evaluated(Tuning()))


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("request_", [Tuning("auto"), Tuning(1e3, layout="contiguous")])
def test_what_is_given_by_hand_is_not_measured_and_short_evaluations_are_not(
    request_: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling_to(monkeypatch, lambda network, x: network(x))
    trials = evaluated(request_, batch_size=32).environment["tuning"]
    assert all("contiguous" in name and "batches of 32" in name for name in trials)
    assert (len(trials) == 0) == (request_.tune == "auto")


def test_weights_in_float64_are_searched_in_float64() -> None:
    model, (x, y) = examples()
    outcome = evaluate(model.double(), (x.double(), y), THREAT, QUICK, tuning=Tuning(layout="channels-last"))
    assert outcome.environment["search"] == "float64" and outcome.environment["channels_last"] is False
