"""FW-AT against Frank-Wolfe typed again here, and FW-AT-Adapt's numbers of steps on scripted distortions."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import make_batch, network, noise_for
from unperturbed.errors import InputError
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.methods.base import Method
from unperturbed.methods.fw_at import FWAT, FWATAdapt, distortion
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm

BATCH = make_batch(12, torch.float64)
THREAT = Threat("Linf", 0.3)


def perturbed(method: Method, model: nn.Module, batch: Batch = BATCH, threat: Threat = THREAT) -> Inner:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch))


def frank_wolfe(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Return x + delta after delta <- (1 - c_k) delta + c_k (corner - x), c_k = 2 / (2 + k), from 0; Linf, box cut."""
    model.eval()
    delta = torch.zeros_like(x)
    for k in range(steps):
        z = (x + delta).requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(model(z), y), z)
        corner = (x + eps * slope.sign()).clamp(0, 1) - x
        delta = (1 - 2 / (2 + k)) * delta + 2 / (2 + k) * corner
    model.train()
    return x + delta


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_fw_at_trains_at_the_end_of_frank_wolfe(steps: int) -> None:
    model = network("norm", torch.float64)
    for method in (FWAT(FrankWolfe(steps)), adapted(steps)):
        inner = perturbed(method, model)
        expected = frank_wolfe(model, BATCH.x, BATCH.y, 0.3, steps)
        torch.testing.assert_close(inner.z, expected, rtol=0, atol=1e-12)
        terms = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
        torch.testing.assert_close(terms["adversarial"], functional.cross_entropy(model(expected), BATCH.y))
    assert FWAT().maximiser == FrankWolfe(steps=7)


def adapted(steps: int) -> FWATAdapt:
    method = FWATAdapt()
    method.steps = torch.tensor(steps)
    return method


class Peak(nn.Module):
    """Logits (0, t), t = 1000 + <slope, x> - curvature |x - 0.4|^2: the loss of class 0 is t."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.slope = nn.Parameter(torch.randn(32, generator=draw, dtype=torch.float64))
        self.curvature = curvature

    def forward(self, x: Inputs) -> Logits:
        x = x.flatten(1)
        t = 1000 + x @ self.slope - self.curvature * (x - 0.4).square().sum(1)
        return torch.stack([torch.zeros_like(t), t], dim=1)


OF_CLASS_0 = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)


@pytest.mark.parametrize(("norm", "box"), [("Linf", True), ("L2", True), ("L1", False)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_affine_loss_has_distortion_1_whatever_the_box_cuts_off(norm: Norm, box: bool, steps: int) -> None:
    threat = Threat(norm, {"Linf": 0.3, "L2": 0.8, "L1": 3.0}[norm], (0.0, 1.0) if box else None)
    inner = perturbed(FWAT(FrankWolfe(steps)), Peak(0.0), OF_CLASS_0, threat)
    torch.testing.assert_close(inner.log["distortion"], torch.ones(12, dtype=torch.float64))
    cut = threat.distortion(BATCH.x, inner.z)
    assert norm != "Linf" or cut.max() < 0.98, "of the whole cube's corner it would be less"


def test_a_gradient_that_turns_round_gives_a_third() -> None:
    """corner, then the opposite one: (1/3 - 2/3) of it; the box aside, as the paper counts."""
    x = torch.full((4, 2, 4, 4), 0.4, dtype=torch.float64)
    batch = Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    model = Peak(10.0)
    with torch.no_grad():
        model.slope.abs_().add_(1)
    inner = perturbed(FWAT(FrankWolfe(2)), model, batch)
    torch.testing.assert_close(inner.z, x - 0.1)
    torch.testing.assert_close(inner.log["distortion"], torch.full((4,), 1 / 3, dtype=torch.float64))
    open_threat = Threat("Linf", 0.3, None)
    torch.testing.assert_close(
        distortion(open_threat, x, inner.z), (inner.z - x).flatten(1).norm(dim=1) / (0.3 * 32**0.5)
    )


def test_a_point_that_has_not_moved_has_distortion_0() -> None:
    for threat in (THREAT, Threat("L2", 1.0), Threat("Linf", 0.0)):
        assert torch.equal(distortion(threat, BATCH.x, BATCH.x.clone()), torch.zeros(12, dtype=torch.float64))


# Adapt


def show(method: FWATAdapt, values: Sequence[float], eps: float = 0.3) -> int:
    """Let it see a batch with these distortions; return the steps that the batch had."""
    steps = int(method.steps)
    reached = torch.tensor(values)
    batch = make_batch(len(values))
    method.after_step(batch, Inner(batch.x, log={"distortion": reached}), {}, Threat("Linf", eps))
    return steps


def decisions(method: FWATAdapt, script: Sequence[float]) -> Iterator[int]:
    """Yield the steps in the rest of each cycle of ten batches, of which two are monitored, and check all of them."""
    for value in script:
        steps = [show(method, [value] * 10) for _ in range(2)] + [show(method, [0.0] * 10) for _ in range(8)]
        assert steps[:2] == [2, 2] and len(set(steps[2:])) == 1
        yield steps[2]


def test_the_steps_follow_the_script() -> None:
    method = FWATAdapt(cycle=100, monitored=20)
    script = [0.95, 0.5, 0.5, 0.5, 0.95, 0.95, 0.95, 0.1, 0.91, *[0.3] * 8, 0.99, 0.99, 0.89, 0.91]
    expected = [1, 3, 5, 7, 3, 1, 1, 3, 1, 3, 5, 7, 9, 11, 13, 15, 15, 7, 3, 5, 2]
    assert list(decisions(method, script)) == expected


def test_the_threshold_itself_saves_steps() -> None:
    assert list(decisions(FWATAdapt(cycle=100, monitored=20, r=0.5), [0.25, 0.5, 0.49])) == [3, 1, 3]


def test_whole_batches_are_monitored_and_their_examples_averaged() -> None:
    """At least as many as asked for; a batch counts by its examples."""
    method = FWATAdapt(cycle=100, monitored=10)
    assert [show(method, values) for values in ([1.0] * 3, [0.8] * 6, [0.95] * 4)] == [2, 2, 2]
    assert int(method.seen) == 13 and float(method.total / method.seen) == pytest.approx((3 + 4.8 + 3.8) / 13)
    assert int(method.steps) == 3, "the mean is 0.892; that of the batches is 0.917"


def test_on_few_data_the_first_decision_stands() -> None:
    """A cycle that is longer than the run: two steps for as long as is monitored, then those decided upon."""
    method = FWATAdapt()
    assert (method.cycle, method.monitored, method.r) == (50_000, 1_000, 0.9)
    steps = [show(method, [0.7] * 36) for _ in range(200)]
    assert steps == [2] * 28 + [3] * 172


def test_a_cycle_begins_again_while_eps_grows() -> None:
    """A ramp is spent on two steps, and the steps before it are not forgotten."""
    method = FWATAdapt(cycle=100, monitored=20)
    ramp = [show(method, [1.0] * 10, eps) for eps in (0.0, 0.01, 0.1, 0.2, 0.29)]
    assert ramp == [2] * 5 and int(method.last) == 1
    assert [show(method, [0.1] * 10) for _ in range(4)] == [2, 2, 3, 3]
    assert [show(method, [0.1] * 10, 0.2) for _ in range(4)] == [3, 2, 2, 5], "the batch on three steps does not count"


@pytest.mark.parametrize("reached", [1.0, 0.1])
def test_a_step_that_shows_enough_by_itself_decides_nothing_while_eps_grows(reached: float) -> None:
    """As where a step has as many examples as are monitored."""
    method = FWATAdapt(cycle=100, monitored=10)
    assert [show(method, [reached] * 10, eps) for eps in (0.0, 0.01, 0.1, 0.2, 0.29, 0.3)] == [2] * 6
    assert int(method.last) == 1
    assert [show(method, [0.1] * 10) for _ in range(3)] == [2, 3, 3]


def test_the_log_says_how_many_steps_there_were() -> None:
    model, calls = network("plain", torch.float64), []
    model.register_forward_hook(lambda module, given, logits: calls.append(len(logits)))
    for steps in (2, 5):
        calls.clear()
        inner = perturbed(adapted(steps), model)
        assert len(calls) == steps and torch.equal(inner.log["steps"], torch.full((12,), float(steps)).double())
        torch.testing.assert_close(inner.log["distortion"], distortion(THREAT, BATCH.x, inner.z))


def test_the_examples_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, of which the other has half as many examples, at distortion 1."""
    other = iter([torch.tensor([5.0, 5.0])] * 3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(next(other)))
    method = FWATAdapt(cycle=100, monitored=30)
    assert [show(method, [0.8] * 10) for _ in range(3)] == [2, 2, 3]
    assert int(method.seen) == 45


@pytest.mark.parametrize(
    "wrong", [{"r": 0.0}, {"r": 1.0}, {"r": 2.0}, {"r": float("nan")}, {"monitored": 0}, {"monitored": 5, "cycle": 5}]
)
def test_what_would_not_adapt_is_refused(wrong: dict[str, float]) -> None:
    """The released script's r of 2 among it: steps would only grow."""
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
        FWATAdapt(**wrong)  # type: ignore[arg-type]


def test_stronger() -> None:
    assert FWAT().stronger() == FWAT(FrankWolfe(steps=14))
    assert FWATAdapt().stronger() is None
