"""Laws of all training methods; the classes are found by file, so that a new one is tested automatically.

A method that breaks a law on purpose, or that needs arguments, is in one of the tables on top (or `support.EXAMPLES`).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn

import unperturbed.methods
from support.examples import (
    NORMS,
    Counted,
    classes_in,
    find_classes,
    make,
    make_batch,
    modules_of,
    network,
    noise_for,
    pick,
    smoothed,
    total,
    untouched,
    with_gradients,
)
from unperturbed.errors import RunError
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.restarts import Restarts
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method, Wrapper
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.fw_at import FWAT
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.networks.modes import buffers_restored, under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Inputs, Logits, Model, Norm, Terms

OBJECTIVES = find_classes(unperturbed.methods, Method)
every_objective = pytest.mark.parametrize("kind", OBJECTIVES, ids=lambda kind: kind.__name__)
every_norm = pytest.mark.parametrize("norm", NORMS)
NETWORKS = ("plain", "norm", "dropout")
every_network = pytest.mark.parametrize("net", NETWORKS)
every_pair = pytest.mark.parametrize(
    ("kind", "net", "norm"),
    [(kind, NETWORKS[k], NORMS[(k + sum(kind.__name__.encode())) % 3]) for kind in OBJECTIVES for k in range(3)],
)
"""Every method with every network and every norm, every network with every norm; not every three of them."""
EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 0.8, "L1": 3.0}

REACH: dict[str, Callable[[Any], float]] = {
    "n-fgsm": lambda method: method.noise_size + method.step_size,
    "clp-original": lambda method: torch.inf,
    "sora": lambda method: 1 + method.step_size,
    "smoothing": lambda method: torch.inf,
}
"""How many eps away from x the points may lie, other than 1; inside the box they are anyhow, or nearly all."""

UNBOXED = {"smoothing"}
"""Methods whose points leave the box."""

COSTS: dict[str, Callable[[int], tuple[int, int, int]]] = {
    "erm": lambda k: (1, 0, 1),
    "fgsm": lambda k: (2, 1, 1),
    "rs-fgsm": lambda k: (2, 1, 1),
    "n-fgsm": lambda k: (2, 1, 1),
    "free": lambda k: (1, 0, 1),
    "at": lambda k: (k + 1, k, 1),
    "trades": lambda k: (k + 3, k, 2),
    "mart": lambda k: (k + 2, k, 2),
    "alp": lambda k: (k + 2, k, 2),
    "clp": lambda k: (k + 2, k, 2),
    "clp-original": lambda k: (1, 0, 1),
    "scorpio": lambda k: (k + 2, k + 1, 1),
    "llr": lambda k: (k + 4, k + 1, 3),
    "gradient-penalty": lambda k: (2, 1, 2),
    "cure": lambda k: (3, 3, 2),
    "soar": lambda k: (k + 2, k + 2, 2),
    "grad-align": lambda k: (3, 2, 2),
    "elle": lambda k: (5, 1, 4),
    "elle-a": lambda k: (5, 1, 4),
    "fw-at": lambda k: (k + 1, k, 1),
    "fw-at-adapt": lambda k: (k + 1, k, 1),
    "sora": lambda k: (2, 1, 1),
    "constrained": lambda k: (k + 2, k, 2),
    "awp": lambda k: (k + 2, k, 2),
    "dale": lambda k: (k + 2, k, 2),
    "dale-laplacian": lambda k: (k + 2, k, 2),
    "dale-kl": lambda k: (k + 3, k, 2),
    "prl": lambda k: (30, 0, 10),
    "term": lambda k: (1, 0, 1),
    "noise": lambda k: (1, 0, 1),
    "smoothing": lambda k: (1, 0, 1),
}
"""Passes of the network a step, at most, with an inner maximisation of k steps: forward, to inputs, to weights."""

HELD = {"llr", "gradient-penalty", "cure", "soar", "grad-align", "elle", "elle-a"}
"""Methods whose later forwards are normalised with the first one's statistics, and do not move the averages."""

ASCENT = {"awp"}
"""Methods that look at the loss twice: the first time moves no averages, and what it finds is a constant."""

REVERSE: dict[str, Callable[[int], tuple[int, int, int]]] = {"llr": lambda k: (k + 3, k + 2, 2)}
"""Passes where slopes are taken in reverse mode, as they are on the network "plain"."""

CLEAN = {"erm", "gradient-penalty", "cure", "term"}
"""Methods whose points are the inputs themselves."""

DETERMINISTIC = {"erm", "fgsm", "free", "scorpio", "gradient-penalty", "cure", "grad-align"}
DETERMINISTIC |= {"elle", "elle-a", "fw-at", "fw-at-adapt", "term"}
"""Methods whose points do not depend on the noise where gradients are not zero."""

RANDOM = {"clp-original", "noise", "smoothing", "prl"}
"""Methods whose points are drawn (and chosen), not moved by a gradient."""

NO_STEPS = {"erm", "free", "clp-original", "gradient-penalty", "cure", "fw-at-adapt", "prl", "term"}
NO_STEPS |= {"noise", "smoothing"}
"""Methods without an inner maximisation that could be made stronger."""


def perturbed(method: Method, model: Model, batch: Batch, threat: Threat, seed: int = 5) -> Inner:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch, seed))


def points(inner: Inner, batch: Batch) -> Iterator[Inputs]:
    """Yield the perturbed inputs: one set, or several stacked."""
    yield from inner.z if inner.z.dim() > batch.x.dim() else [inner.z]


def steps_of(method: Any) -> int:
    """Return the steps of the inner maximisation, 1 where there is no such number."""
    if isinstance(method, Wrapper):
        return steps_of(method.method)
    return int(getattr(getattr(method, "maximiser", method), "steps", 1))


def tensors_of(batch: Batch) -> list[Tensor]:
    return [batch.x, batch.y, batch.ids, batch.targets]


def test_every_file_has_an_objective_and_every_objective_a_name_of_its_own() -> None:
    for module in modules_of(unperturbed.methods):
        assert module.__name__.endswith(".base") or classes_in(module, Method), f"none found in {module.__name__}"
    names = [kind.name for kind in OBJECTIVES]
    assert len(set(names)) == len(names) >= 10
    for table in (REACH, UNBOXED, REVERSE, CLEAN, HELD, ASCENT, DETERMINISTIC, RANDOM, NO_STEPS):
        assert set(table) <= set(names), "a table speaks of a method that is not there"
    assert set(COSTS) == set(names), "every method says what it costs"


@every_pair
def test_terms_are_finite_scalars_and_every_weight_learns(kind: type, net: str, norm: Norm) -> None:
    model, batch, threat = network(net), make_batch(), Threat(norm, EPS[norm])
    for one in (batch, smoothed(batch)):
        method = make(kind)
        inner = perturbed(method, model, one, threat)
        assert all(not value.requires_grad for value in {**inner.reuse, **inner.log}.values())
        assert inner.z.grad_fn is None
        terms = method.loss(model, one, inner, threat, noise_for(one))
        assert terms and all(term.shape == () and term.isfinite() for term in terms.values())
        model.zero_grad()
        total(terms).backward()
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


@every_objective
@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(NORMS),
    size=st.sampled_from([0.0, 0.01, 1.0, 5.0]),
    box=st.sampled_from(["unit", "none", "per feature"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=12, deadline=None)
def test_the_points_lie_inside_the_threat(
    kind: type, seed: int, norm: Norm, size: float, box: str, dtype: torch.dtype
) -> None:
    batch = make_batch(4, dtype, seed)
    low, high = batch.x.amin(0), batch.x.amax(0)
    threat = Threat(norm, size * EPS[norm], {"unit": (0.0, 1.0), "none": None, "per feature": (low, high)}[box])
    method = make(kind)
    inner = perturbed(method, network("plain", dtype, scale=1.0), batch, threat, seed)
    reach = REACH.get(method.name, lambda _: 1.0)(method)
    allowed = replace(threat, eps=min(reach * threat.eps if threat.eps else 0.0, 1e6))
    allowed = replace(allowed, bounds=None) if method.name in UNBOXED else allowed
    for z in points(inner, batch):
        assert z.shape == batch.x.shape and z.dtype == dtype
        assert allowed.contains(batch.x, z).all()


@every_objective
@every_norm
def test_the_points_do_not_depend_on_the_order_of_the_batch(kind: type, norm: Norm) -> None:
    """Random numbers belong to the example's id, not to its place."""
    model, batch, threat = network("plain"), make_batch(8), Threat(norm, EPS[norm])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    first, second = (perturbed(make(kind), model, one, threat).z for one in (batch, pick(batch, order)))
    assert torch.equal(second, first[..., order, :, :, :])
    again = perturbed(make(kind), model, batch, threat).z
    assert torch.equal(again, first)


@every_objective
def test_the_noise_is_the_examples_own(kind: type) -> None:
    """Where a method is random at all, other noise gives other points, each example its own."""
    method, model = make(kind), network("plain")
    batch = replace(make_batch(8), x=torch.full((8, 2, 4, 4), 0.5))
    threat = Threat("L2", 0.8)
    first, other = (perturbed(method, model, batch, threat, seed).z for seed in (1, 2))
    assert torch.equal(first, other) == (method.name in DETERMINISTIC)


# State: what perturb must leave alone (S4, S5, S21)


@every_pair
def test_perturb_restores_every_mode_and_touches_nothing_s4(kind: type, net: str, norm: Norm) -> None:
    """Each submodule's own mode: the batch norm that was frozen before stays frozen, and nothing else is."""
    model, batch, threat = with_gradients(network(net)), smoothed(make_batch()), Threat(norm, EPS[norm])
    noise = noise_for(batch)
    modes = {module.training for module in model.modules()}
    assert modes == ({True, False} if net == "dropout" else {True})
    with untouched(model, *tensors_of(batch), noise.keys):
        with under_attack(model):
            inner = make(kind).perturb(model, batch, threat, noise)
    if make(kind).name not in CLEAN:
        with torch.no_grad():
            inner.z.add_(1)  # it is the method's own memory
    assert batch.x.max() <= 1


@every_objective
@every_network
def test_perturb_and_loss_keep_to_their_modes_s4(kind: type, net: str) -> None:
    """Attacks see the network in eval mode with frozen weights, the loss sees it as training left it."""
    method, model, batch, threat = make(kind), network(net), make_batch(), Threat("Linf", 0.2)
    seen: list[tuple[set[bool], bool]] = []

    def look(module: nn.Module, given: object) -> None:
        modes = {part.training for part in module.modules()}
        seen.append((modes, any(weight.requires_grad for weight in module.parameters())))

    model.register_forward_pre_hook(look)
    inner = perturbed(method, model, batch, threat)
    assert all(look == ({False}, False) for look in seen)
    seen.clear()
    method.loss(model, batch, inner, threat, noise_for(batch))
    assert seen and all(look == ({True, False} if net == "dropout" else {True}, True) for look in seen)


class Fragile(nn.Module):
    """Fails in the middle of a network, at the k-th call."""

    def __init__(self, inner: nn.Module, healthy_calls: int) -> None:
        super().__init__()
        self.inner, self.left = inner, healthy_calls

    def forward(self, x: Inputs) -> Logits:
        self.left -= 1
        if self.left < 0:
            raise ZeroDivisionError("out of memory, or Ctrl-C")
        return self.inner(x)  # type: ignore[no-any-return]


@every_objective
@pytest.mark.parametrize(("net", "calls"), [("plain", 0), ("dropout", 0), ("dropout", 1), ("norm", 4)])
def test_an_exception_in_the_network_leaves_everything_as_it_was_s5(kind: type, net: str, calls: int) -> None:
    method, model, batch, threat = make(kind), with_gradients(network(net)), make_batch(), Threat("L2", 0.5)
    fragile = Fragile(model, calls)
    memory = checkpoint.memory(method)
    with untouched(fragile, *tensors_of(batch)):
        with suppress(ZeroDivisionError), under_attack(fragile):
            method.perturb(fragile, batch, threat, noise_for(batch))
            fragile.left = 0
            fragile(batch.x)
    assert fragile.left < 0
    fragile.left = 10**6
    again = perturbed(method, fragile, batch, threat).z
    assert torch.equal(again, perturbed(make(kind), model, batch, threat).z), "and the next call is not affected"
    assert all(torch.equal(value, memory[name]) for name, value in checkpoint.memory(method).items())


@dataclass
class Trainer:
    """Takes optimisation steps as the training loop does, through Fabric, and counts passes."""

    model: nn.Module
    lr: float = 0.1

    def __post_init__(self) -> None:
        self.counted = Counted(self.model)
        self.fabric = Fabric(accelerator="cpu", devices=1)
        optimiser = torch.optim.SGD(self.counted.parameters(), lr=self.lr)
        self.wrapped, self.optimiser = self.fabric.setup(self.counted, optimiser)
        self.attacked = InPrecision(self.counted)

    def step(self, method: Method, batch: Batch, threat: Threat, seed: int = 5) -> tuple[Terms, Inner]:
        return optimisation_step(
            self.fabric, self.attacked, self.wrapped, self.optimiser, method, batch, threat, noise_for(batch, seed)
        )


@every_objective
@pytest.mark.parametrize("net", ["norm", "dropout"])
def test_only_the_training_forwards_move_batch_norms_averages_s21(kind: type, net: str) -> None:
    """Once a training forward; and as if there had been no attack at all."""
    method, batch, threat = make(kind), make_batch(), Threat("Linf", 0.2)
    trainer = Trainer(network(net), lr=0.0)
    alone = copy.deepcopy(trainer.model)
    counters = [m for m in trainer.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    assert len(counters) == 1
    for steps in (1, 2):
        calls, rng = trainer.counted.training_calls, torch.get_rng_state()
        _, inner = trainer.step(method, batch, threat)
        torch.set_rng_state(rng)  # the same masks of dropout again
        calls = trainer.counted.training_calls - calls
        assert calls >= 1
        assert calls <= COSTS[method.name](1)[2]
        method.loss(alone, batch, inner, threat, noise_for(batch))
        moved = 1 if method.name in HELD | ASCENT else calls
        assert int(counters[0].num_batches_tracked) == steps * moved
    for name, buffer in trainer.model.named_buffers():
        assert torch.equal(buffer, alone.get_buffer(name)), name


@every_objective
def test_a_step_changes_the_weights_and_nothing_of_the_callers(kind: type) -> None:
    trainer, batch = Trainer(network("norm")), make_batch()
    before = [(t.clone(), t.stride(), t._version) for t in tensors_of(batch)]
    weights = copy.deepcopy(trainer.model.state_dict())
    terms, _ = trainer.step(make(kind), batch, Threat("Linf", 0.2))
    assert all(not term.requires_grad for term in terms.values())
    assert all(module.training for module in trainer.model.modules())
    assert all(weight.requires_grad for weight in trainer.model.parameters())
    for name, weight in trainer.model.named_parameters():
        assert not torch.equal(weight, weights[name]), name
    for tensor, (values, stride, version) in zip(tensors_of(batch), before, strict=True):
        assert torch.equal(tensor, values) and tensor.stride() == stride and tensor._version == version
        assert not tensor.requires_grad and tensor.grad is None


@every_objective
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(kind: type) -> None:
    model = network("plain")
    trainer, batch = Trainer(model), make_batch()
    with torch.no_grad():
        model.get_parameter("3.bias")[0] = torch.nan
    with untouched(model), pytest.raises(RunError, match=str(batch.ids.tolist()[0])):
        trainer.step(make(kind), batch, Threat("Linf", 0.2))


# The gradient


@every_objective
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_the_gradient_is_that_of_the_loss_at_frozen_points(kind: type, net: str) -> None:
    """In float64, along random directions in the space of the weights, against central differences."""
    method, model, batch = make(kind), network(net, torch.float64, scale=0.5), smoothed(make_batch(6, torch.float64))
    if method.name in ASCENT:
        pytest.skip("its v follows w and is held constant; test_awp.py has the published form instead")
    threat = Threat("Linf", 0.2) if method.name == "gradient-penalty" else Threat("L2", 0.8)  # its sign stays put
    inner = perturbed(method, model, batch, threat)
    weights = list(model.parameters())
    centre = [weight.detach().clone() for weight in weights]
    draw = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        return total(method.loss(model, batch, inner, threat, noise_for(batch)))

    with buffers_restored(model):  # some losses are normalised by the running averages, which each forward moves
        gradient = torch.autograd.grad(loss(), weights)
    size = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
    for _ in range(3):
        direction = [torch.randn(w.shape, generator=draw, dtype=w.dtype) * w.numel() ** -0.5 for w in weights]
        expected = torch.stack([(g * d).sum() for g, d in zip(gradient, direction, strict=True)]).sum()
        ends = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                for weight, middle, d in zip(weights, centre, direction, strict=True):
                    weight.copy_(middle + h * d)
            with buffers_restored(model):
                ends.append(loss().detach())
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope - expected) <= 1e-6 * size, (float(slope), float(expected))


@every_objective
def test_frozen_points_are_not_followed(kind: type) -> None:
    """The check of the test above: points that move with the weights give another derivative where there are any."""
    method, model, batch = make(kind), network("plain", torch.float64, scale=0.5), make_batch(6, torch.float64)
    threat, h = Threat("L2", 0.8), 1e-4
    weight = model.get_parameter("1.weight")
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8
    frozen = perturbed(method, model, batch, threat)
    slopes = []
    for follow in (False, True):
        ends = []
        for step in (h, -2 * h):
            with torch.no_grad():
                weight.add_(step * direction)
            inner = perturbed(method, model, batch, threat) if follow else frozen
            ends.append(total(method.loss(model, batch, inner, threat, noise_for(batch))).detach())
        with torch.no_grad():
            weight.add_(h * direction)
        slopes.append(float(ends[0] - ends[1]) / (2 * h))
    moves = method.name not in CLEAN | RANDOM | {"free"}
    assert (abs(slopes[1] - slopes[0]) > 1e-7) == moves


@every_objective
@every_norm
def test_zero_gradients_give_no_nan_s17(kind: type, norm: Norm) -> None:
    """Where the logits do not depend on the input at all, dividing by the gradient's length must not make NaN."""
    model, batch, threat = network("plain"), make_batch(), Threat(norm, EPS[norm])
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()
    method = make(kind)
    trainer = Trainer(model)
    for _ in range(2):
        with torch.no_grad():
            model.get_parameter("3.weight").zero_()
        terms, inner = trainer.step(method, batch, threat)
        assert all(term.isfinite() for term in terms.values())
        assert inner.z.isfinite().all()
        assert all(w.isfinite().all() and w.grad is not None and w.grad.isfinite().all() for w in model.parameters())


@every_objective
@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_tiny_and_saturated_logits_give_finite_gradients(kind: type, scale: float) -> None:
    """Gaps of hundreds between the logits in float32, right and wrong; and input gradients near 1e-6."""
    model, batch, threat = network("plain", scale=scale), make_batch(), Threat("L2", 0.5)
    gaps = model(batch.x).topk(2).values.diff().abs()
    assert gaps.max() > 200 if scale > 1 else gaps.max() < 1
    method = make(kind)
    inner = perturbed(method, model, batch, threat)
    assert inner.z.isfinite().all()
    terms = method.loss(model, batch, inner, threat, noise_for(batch))
    total(terms).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(weight.grad.isfinite().all() for weight in model.parameters())  # type: ignore[union-attr]


# Cost


@every_objective
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_a_step_costs_no_more_passes_than_the_table_says(kind: type, net: str) -> None:
    method, batch = make(kind), make_batch(8)
    trainer = Trainer(network(net))
    trainer.step(method, batch, Threat("Linf", 0.2))
    counted = trainer.counted
    table = REVERSE if net == "plain" and method.name in REVERSE else COSTS
    forwards, to_inputs, to_weights = table[method.name](steps_of(method))
    assert counted.forwards <= 8 * forwards and counted.to_inputs <= 8 * to_inputs
    assert counted.to_weights <= 8 * to_weights
    assert counted.forwards > 0 and counted.to_weights > 0 and (counted.to_inputs > 0) == (to_inputs > 0)


VARIANTS: dict[str, tuple[Method, tuple[int, int, int]]] = {
    "scorpio, one step": (SCORPIO(steps=1), (3, 2, 1)),
    "scorpio, one step, both losses": (SCORPIO(steps=1, weight=0.5), (4, 2, 2)),
    "scorpio, both losses": (SCORPIO(weight=0.5), (6, 4, 2)),
    "scorpio, quadratic": (SCORPIO(value="quadratic"), (6, 6, 2)),
    "gradient-penalty, central": (GradientPenalty(form="central"), (3, 1, 3)),
    "gradient-penalty, exact": (GradientPenalty(form="exact"), (1, 1, 1)),
    "awp around trades": (AWP(TRADES()), (15, 10, 4)),
    "fw-at, three steps": (FWAT(FrankWolfe(3)), (4, 3, 1)),
}
"""Rows of the table for other settings than the defaults."""


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_variants_cost_what_the_table_says(name: str, net: str) -> None:
    method, expected = VARIANTS[name]
    trainer = Trainer(network(net))
    trainer.step(method, make_batch(8), Threat("Linf", 0.2))
    counted = trainer.counted
    found = tuple(count // 8 for count in (counted.forwards, counted.to_inputs, counted.to_weights))
    assert found == expected


# Memory and wrappers


@dataclass(frozen=True)
class Halved(Method):
    """A wrapper as a frozen dataclass."""

    method: Method

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return self.method.perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        terms = self.method.loss(model, batch, inner, threat, noise)
        return {name: term / 2 for name, term in terms.items()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        self.method.after_step(batch, inner, terms, threat)


class Weighted(nn.Module, Method):
    """A wrapper with memory of its own: a weight that follows the loss."""

    weight: Tensor

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("weight", torch.tensor(1.0))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return self.method.perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        terms = self.method.loss(model, batch, inner, threat, noise)
        return {name: term * self.weight for name, term in terms.items()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        self.weight = self.weight * 0.9 + 0.01 * total(terms).detach()
        self.method.after_step(batch, inner, terms, threat)


DEEP = "in a dataclass in a module"
ANY = (DEEP, "perturbed and limited")
"""Wrappers that methods without memory are resumed in, too."""
NESTINGS: dict[str, Callable[[Method], Method]] = {
    "alone": lambda method: method,
    "in a dataclass": Halved,
    "in a module": Weighted,
    "in a module in a dataclass": lambda method: Halved(Weighted(method)),
    DEEP: lambda method: Weighted(Halved(method)),
    "in two modules": lambda method: Weighted(Weighted(method)),
    "limited": lambda method: method if isinstance(method, Constrained) else Constrained(method, nominal_loss=0.5),
    "perturbed and limited": lambda method: AWP(method if isinstance(method, Constrained) else Constrained(method)),
}


@pytest.mark.parametrize(
    ("kind", "nesting"),
    [
        pytest.param(
            kind,
            nesting,
            marks=() if nesting == ("alone" if issubclass(kind, nn.Module) else DEEP) else pytest.mark.slow,
        )
        for kind in OBJECTIVES
        for nesting in NESTINGS
        if issubclass(kind, nn.Module) or nesting in ANY
    ],
)
def test_a_resumed_method_goes_on_as_if_never_stopped(kind: type, nesting: str, tmp_path: Path) -> None:
    """Bit-identical weights and memory, through a file, whatever wraps the method."""
    threat = Threat("Linf", 0.2)
    batches = [make_batch(4, seed=k) for k in range(4)]
    method, trainer = NESTINGS[nesting](make(kind)), Trainer(network("norm"))
    for batch in batches[:2]:
        trainer.step(method, batch, threat)
    checkpoint.save(tmp_path / "saved", {"memory": checkpoint.memory(method)})
    weights = copy.deepcopy(trainer.model.state_dict())
    for batch in batches[2:]:
        trainer.step(method, batch, threat)
    resumed, other = NESTINGS[nesting](make(kind)), Trainer(network("norm", seed=1))
    checkpoint.restore_memory(resumed, checkpoint.load(tmp_path / "saved")["memory"])
    other.model.load_state_dict(weights)
    for batch in batches[2:]:
        other.step(resumed, batch, threat)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    memory, again = checkpoint.memory(method), checkpoint.memory(resumed)
    assert set(memory) == set(again) and all(torch.equal(memory[name], again[name]) for name in memory)
    assert nesting in {"alone", "in a dataclass"} or {"weight", "dual"} & {n.split(".")[-1] for n in memory}
    assert kind is not Free or sum(name.endswith("delta") for name in memory) == 1


def test_memory_is_a_copy() -> None:
    """A saved state does not change during later training, and training does not change a restored one."""
    method = Weighted(ERM())
    saved = checkpoint.memory(method)
    method.weight.mul_(5)
    assert float(saved["weight"]) == 1.0
    checkpoint.restore_memory(method, saved)
    assert float(method.weight) == 1.0


def test_only_free_remembers() -> None:
    """A method with memory is a module; the tests of resuming above have something to resume."""
    assert [kind for kind in OBJECTIVES if checkpoint.memory(make(kind))] == [
        kind for kind in OBJECTIVES if issubclass(kind, nn.Module)
    ]
    assert Free in OBJECTIVES


# Stronger


@every_objective
def test_stronger_doubles_the_steps_and_nothing_else(kind: type) -> None:
    method = make(kind)
    stronger = method.stronger()
    assert (stronger is None) == (method.name in NO_STEPS)
    if stronger is None:
        return
    steps = steps_of(method)
    assert steps_of(stronger) == 2 * steps
    if hasattr(method, "maximiser"):
        assert stronger == replace(method, maximiser=replace(method.maximiser, steps=2 * steps))
        assert steps_of(stronger.stronger()) == 4 * steps
    trainer = Trainer(network("plain"))
    trainer.step(stronger, make_batch(), Threat("Linf", 0.2))


def test_stronger_doubles_the_steps_of_a_maximiser_that_is_restarted() -> None:
    assert AT(Restarts(PGD(7), 3)).stronger() == AT(Restarts(PGD(14), 3))
    assert AT(Restarts(Restarts(PGD(7)))).stronger() == AT(Restarts(Restarts(PGD(14))))
