"""Free adversarial training against its algorithm, typed again here, and what it remembers."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from support.examples import NORMS, make_batch, network
from unperturbed.methods.free import Free
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Norm


class Run:
    """Free on its way, one optimisation step a call."""

    def __init__(self, model: nn.Module, lr: float = 0.05, momentum: float = 0.0) -> None:
        self.fabric = Fabric(accelerator="cpu", devices=1)
        self.method = Free()
        optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        self.wrapped, self.optimiser = self.fabric.setup(model, optimiser)
        self.attacked = InPrecision(model)

    def step(self, batch: Batch, threat: Threat, clip: float | None = None) -> Tensor:
        noise = Noise.of(0, batch.ids)
        terms, inner = optimisation_step(
            self.fabric, self.attacked, self.wrapped, self.optimiser, self.method, batch, threat, noise, clip
        )
        assert threat.contains(batch.x, inner.z).all()
        return terms["adversarial"]


def authors_free(model: nn.Module, batches: list[Batch], eps: float, replays: int, lr: float) -> tuple[Tensor, int]:
    """Algorithm 1: descend in the weights and ascend in delta with the gradients of one backward, m times a batch."""
    delta = torch.zeros_like(batches[0].x)
    optimiser, steps = torch.optim.SGD(model.parameters(), lr=lr), 0
    for batch in batches:
        for _ in range(replays):
            noise = delta.clone().requires_grad_()
            z = (batch.x + noise).clamp(0, 1)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(z), batch.y).backward()
            assert noise.grad is not None
            delta = (delta + eps * noise.grad.sign()).clamp(-eps, eps)
            optimiser.step()
            steps += 1
    return delta, steps


def test_free_is_algorithm_1() -> None:
    """Over three batches, up to rounding; with inputs away from the box, where the authors' delta goes on growing."""
    batches = [make_batch(8, torch.float64, seed) for seed in range(3)]
    batches = [Batch(batch.x * 0.4 + 0.3, batch.y, batch.ids) for batch in batches]
    mine, theirs = network("norm", torch.float64), network("norm", torch.float64)
    run = Run(mine)
    for batch in batches:
        for _ in range(Free.repeats):
            run.step(batch, Threat("Linf", 0.1))
    delta, steps = authors_free(theirs, batches, 0.1, 8, 0.05)
    assert Free.repeats == 8 and steps == 24
    torch.testing.assert_close(run.method.delta, delta, rtol=0, atol=1e-12)
    for one, other in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_delta_lives_on_from_batch_to_batch_inside_the_ball(norm: Norm) -> None:
    eps = {"Linf": 0.1, "L2": 0.7, "L1": 2.0}[norm]
    threat, run = Threat(norm, eps), Run(network("plain"), lr=0.0)
    first, second = make_batch(8, seed=0), make_batch(8, seed=1)
    losses = [run.step(first, threat) for _ in range(3)]
    assert losses[-1] > losses[0], "the perturbation climbs the loss"
    carried = run.method.delta.clone()
    assert carried.any() and threat.contains(first.x, first.x + carried).all()
    seen: list[Tensor] = []
    run.attacked.network.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    run.step(second, threat)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], threat.project(second.x, second.x + carried))
    assert not torch.equal(run.method.delta, carried)


def test_a_smaller_ball_cuts_delta() -> None:
    """The threat comes with the call: a ramp, or another eps, is obeyed at once."""
    run, batch = Run(network("plain"), lr=0.0), make_batch(8)
    run.step(batch, Threat("Linf", 0.3))
    run.step(batch, Threat("Linf", 0.01))
    assert run.method.delta.abs().max() <= 0.01 * (1 + 1e-6)


def test_a_smaller_batch_leaves_the_other_places_alone() -> None:
    run, threat = Run(network("plain"), lr=0.0), Threat("Linf", 0.1)
    run.step(make_batch(8), threat)
    carried = run.method.delta.clone()
    run.step(make_batch(3, seed=1), threat)
    assert torch.equal(run.method.delta[3:], carried[3:])
    run.step(make_batch(12, seed=2), threat)
    assert len(run.method.delta) == 12


def test_delta_does_not_feel_the_learning_rate_or_clipping() -> None:
    """Its step is eps along the direction of the gradient, whatever becomes of the weights' gradient."""
    deltas = []
    for lr, clip in ((0.0, None), (0.5, None), (0.5, 1e-6)):
        run = Run(network("plain"), lr=lr)
        run.step(make_batch(8), Threat("Linf", 0.1), clip)
        deltas.append(run.method.delta)
    assert torch.equal(deltas[0], deltas[1]) and torch.equal(deltas[0], deltas[2])


def test_a_backward_that_leaves_no_gradient_is_an_error() -> None:
    method, batch, threat = Free(), make_batch(4), Threat("Linf", 0.1)
    inner = method.perturb(network("plain"), batch, threat, Noise.of(0, batch.ids))
    with pytest.raises(RuntimeError, match="Free needs the gradient"):
        method.after_step(batch, inner, {}, threat)


def test_one_pass_serves_both() -> None:
    """One forward and one backward a step, the weights' update included."""
    model = network("plain")
    run, before = Run(model), copy.deepcopy(model.state_dict())
    calls: list[int] = []
    model.register_forward_hook(lambda module, given, logits: calls.append(len(given[0])))
    run.step(make_batch(8), Threat("Linf", 0.1))
    assert calls == [8]
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
