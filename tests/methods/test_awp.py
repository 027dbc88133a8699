"""AWP against the published in-place form, and what it must leave alone."""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from support.calculus import weight_gradient
from support.examples import Counted, make_batch, network, noise_for, total, untouched
from unperturbed.errors import InputError, RunError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP, layers
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.dale import DALE
from unperturbed.methods.elle import ELLE_A
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Inner, Inputs, Logits, Terms

BATCH = make_batch(8, torch.float64)
THREAT = Threat("Linf", 0.1)
NOISE = noise_for(BATCH)
METHODS: dict[str, Callable[[], Method]] = {
    "at": lambda: AT(PGD(3)),
    "trades": lambda: TRADES(maximiser=PGD(3)),
    "scorpio": lambda: SCORPIO(weight=0.5),
    "llr": LLR,
    "free": Free,
    "elle-a": ELLE_A,
    "constrained llr": lambda: Constrained(LLR(), nominal_loss=0.3),
}


def step(method: Method, model: nn.Module, lr: float = 0.1, momentum: float = 0.9, count: int = 1) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
    for _ in range(count):
        optimisation_step(fabric, InPrecision(model), wrapped, optimiser, method, BATCH, THREAT, NOISE)


def step_in_place(method: Method, model: nn.Module, gamma: float, count: int, lr: float = 0.1) -> None:
    """AWP as published: a copy of the network climbs, the weights are moved, and moved back after the step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(count):
        with under_attack(model):
            inner = method.perturb(model, BATCH, THREAT, NOISE)
        proxy = copy.deepcopy(model)
        climber = torch.optim.SGD(proxy.parameters(), lr=0.01)
        (-total(method.loss(proxy, BATCH, inner, THREAT, NOISE))).backward()
        climber.step()
        proxy.zero_grad()
        if inner.z.grad is not None:
            inner.z.grad = None
        moves = []
        for w, away in zip(model.parameters(), proxy.parameters(), strict=True):
            diff = (away - w).detach()
            moves.append(gamma * w.detach().norm() * diff / (diff.norm() + 1e-20) if w.dim() > 1 else 0 * diff)
        with torch.no_grad():
            for w, move in zip(model.parameters(), moves, strict=True):
                w.add_(move)
        terms = method.loss(model, BATCH, inner, THREAT, NOISE)
        optimiser.zero_grad()
        total(terms).backward()
        optimiser.step()
        with torch.no_grad():
            for w, move in zip(model.parameters(), moves, strict=True):
                w.sub_(move)
        method.after_step(BATCH, inner, terms, THREAT)


@pytest.mark.parametrize("net", ["plain", "norm"])
@pytest.mark.parametrize("name", METHODS)
def test_awp_is_the_published_form(name: str, net: str) -> None:
    """Three steps with momentum: weights, running averages and memory."""
    model, other, plain = (network(net, torch.float64) for _ in range(3))
    method, alone = AWP(METHODS[name](), gamma=0.05), METHODS[name]()
    step(method, model, count=3)
    step_in_place(alone, other, 0.05, 3)
    step(METHODS[name](), plain, count=3)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)
    weight = "1.weight" if net == "plain" else "0.weight"
    assert (model.state_dict()[weight] - plain.state_dict()[weight]).abs().max() > 1e-4, "it makes a difference"
    if isinstance(alone, nn.Module):
        assert isinstance(method.method, nn.Module)
        for key, buffer in alone.named_buffers():
            torch.testing.assert_close(method.method.get_buffer(key), buffer, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("net", ["plain", "norm", "dropout"])
@pytest.mark.parametrize("name", METHODS)
def test_the_parameters_stay_the_same_objects_in_the_same_bits(name: str, net: str) -> None:
    """After the call, under Fabric's wrapper, where each parameter is listed by two paths."""
    model = network(net)
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, _ = fabric.setup(InPrecision(model), torch.optim.SGD(model.parameters(), lr=0.1))
    batch = make_batch(8)
    method, noise = AWP(METHODS[name](), gamma=0.05), noise_for(batch)
    before = {path: (id(w), w.detach().clone(), w._version) for path, w in wrapped.named_parameters()}
    with under_attack(model):
        inner = method.perturb(model, batch, THREAT, noise)
    terms = method.loss(wrapped, batch, inner, THREAT, noise)
    assert all(w.grad is None for w in model.parameters()), "the ascent leaves no gradient behind"
    total(terms).backward()
    after = dict(wrapped.named_parameters())
    assert list(after) == list(before)
    for path, (identity, value, version) in before.items():
        weight = after[path]
        assert id(weight) == identity and torch.equal(weight, value) and weight._version == version
        assert isinstance(weight, nn.Parameter) and (weight.grad is not None) == weight.requires_grad
    assert all(w is model.get_parameter(path) for path, w in model.named_parameters())


def test_the_length_of_each_layers_move() -> None:
    """gamma times that of the weight, along its gradient; nothing of one dimension moves (C7.7)."""
    model = network("norm", torch.float64)
    seen: list[dict[str, Tensor]] = []

    class Watched(ERM):
        def loss(self, network: nn.Module, *given: object) -> Terms:  # type: ignore[override]
            seen.append(dict(getattr(network, "tensors", {})))
            return super().loss(network, *given)  # type: ignore[arg-type]

    method = AWP(Watched(), gamma=0.03)
    inner = method.perturb(model, BATCH, THREAT, NOISE)
    method.loss(model, BATCH, inner, THREAT, NOISE)
    first, second = seen
    assert not first and set(second) == {"0.weight", "4.weight"} == set(layers(model))
    slopes = torch.autograd.grad(
        total(ERM().loss(model, BATCH, inner, THREAT, NOISE)), [model.get_parameter(path) for path in second]
    )
    for (path, moved), slope in zip(second.items(), slopes, strict=True):
        weight = model.get_parameter(path).detach()
        move = moved.detach() - weight
        torch.testing.assert_close(move.norm(), 0.03 * weight.norm())
        torch.testing.assert_close(move / move.norm(), slope / slope.norm())


def test_running_averages_move_once_a_step_and_at_the_moved_weights() -> None:
    model = network("norm", torch.float64)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    step(AWP(ERM(), gamma=0.05), model)
    assert int(norm.num_batches_tracked) == 1


class Tied(nn.Module):
    """A weight in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.last = nn.Linear(8, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.last(self.second(self.first(x.flatten(1)[:, :8]).sin()))
        return logits


def test_tied_weights_move_together() -> None:
    torch.manual_seed(0)
    model = Tied().double()
    other = copy.deepcopy(model)
    step(AWP(AT(PGD(2)), gamma=0.05), model, count=2)
    step_in_place(AT(PGD(2)), other, 0.05, 2)
    assert set(layers(model)) == {"first.weight", "second.weight", "last.weight"}
    for key, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=1e-9, msg=key)
    assert model.first.weight is model.second.weight


def test_a_weight_without_gradient_or_frozen_stays() -> None:
    model = network("plain", torch.float64)
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()  # no gradient reaches the layer before
    before = model.get_parameter("1.weight").detach().clone()
    step(AWP(ERM(), gamma=0.05), model, momentum=0.0)
    assert all(w.isfinite().all() for w in model.parameters())
    assert torch.equal(model.get_parameter("1.weight"), before)
    model.get_parameter("1.weight").requires_grad_(False)
    assert set(layers(model)) == {"3.weight"}


def test_a_small_gradient_moves_a_layer_as_far_as_any() -> None:
    """The squares of the gradient are 0 in float32."""
    for scale in (1.0, 1e-30):
        weight, gradient = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
        move = AWP(gamma=0.03)._ascent(weight, scale * gradient)
        torch.testing.assert_close(move, 0.03 * weight.norm() * gradient / gradient.norm())


def test_a_network_without_a_layer_to_perturb_is_refused() -> None:
    model = network("plain", torch.float64)
    for weight in layers(model).values():
        weight.requires_grad_(False)
    method = AWP(ERM())
    with pytest.raises(InputError, match="no such parameter of this network learns"):
        method.check(model, BATCH, THREAT, NOISE)
    with pytest.raises(InputError, match="train by the method alone"):
        method.loss(model, BATCH, ERM().perturb(model, BATCH, THREAT, NOISE), THREAT, NOISE)
    spoken = AWP(DALE(maximiser=PGD(1))).check(network("plain", torch.float64), BATCH, THREAT, NOISE)
    assert len(spoken) == 1, "what the method says is passed on"


class Checkpointed(nn.Module):
    """Keeps no activations of its first part for the backward in train mode."""

    def __init__(self, first: nn.Module, last: nn.Module, saving: bool) -> None:
        super().__init__()
        self.first, self.last, self.saving = first, last, saving

    def forward(self, x: Inputs) -> Logits:
        h: Tensor = checkpoint(self.first, x, use_reentrant=False) if self.saving else self.first(x)
        logits: Logits = self.last(h)
        return logits


def test_a_network_that_computes_again_in_the_backward_is_refused() -> None:
    """It would do so at weights that are not moved, and its gradient would be another one, without a sign."""
    gradients, batch = [], make_batch(8)
    for saving in (False, True):
        whole = network("plain")
        model = Checkpointed(whole[:3], whole[3:], saving)  # type: ignore[index]
        method, inner = AWP(ERM(), gamma=0.3), Inner(batch.x)
        gradients.append(weight_gradient(total(method.loss(model, batch, inner, THREAT, NOISE)), model))
        model.zero_grad()
        for autocast in (None, torch.bfloat16):
            with (
                untouched(model, batch.x),
                pytest.raises(RunError, match="Switch that off") if saving else nullcontext(),
            ):
                assert method.check(InPrecision(model, autocast), batch, THREAT, NOISE) == []
    assert (gradients[1] - gradients[0]).norm() > 0.1 * gradients[0].norm()


def test_gamma_zero_is_the_method_itself() -> None:
    ours, theirs = network("norm", torch.float64), network("norm", torch.float64)
    step(AWP(TRADES(), gamma=0.0), ours, count=2)
    step(TRADES(), theirs, count=2)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-12, msg=key)


def test_it_costs_a_forward_and_a_backward_to_the_weights_more() -> None:
    counted = Counted(network("norm", torch.float64))
    step(AWP(AT(PGD(3))), counted)
    assert (counted.forwards, counted.to_inputs, counted.to_weights) == (5 * 8, 3 * 8, 2 * 8)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_a_compiled_network_is_perturbed_too() -> None:
    made = []
    for compiled in (False, True):
        attacked = InPrecision(network("norm", torch.float64), compile=compiled)
        method = AWP(AT(PGD(2)), gamma=0.05)
        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped, optimiser = fabric.setup(attacked, torch.optim.SGD(attacked.parameters(), lr=0.1))
        for _ in range(2):
            optimisation_step(fabric, attacked, wrapped, optimiser, method, BATCH, THREAT, NOISE)
        made.append(attacked.network.state_dict())
    for key, value in made[0].items():
        torch.testing.assert_close(made[1][key], value, rtol=0, atol=1e-6, msg=key)


def test_wrapping() -> None:
    assert (AWP(Free()).repeats, AWP(ERM()).ramp) == (8, 0.0)
    stronger = AWP(Constrained(AT(PGD(2))), gamma=0.1).stronger()
    assert isinstance(stronger, AWP) and stronger.gamma == 0.1
    assert isinstance(stronger.method, Constrained) and stronger.method.method == AT(PGD(4))
    assert AWP(ERM()).stronger() is None
    with pytest.raises(InputError, match="gamma is -1"):
        AWP(gamma=-1.0)
