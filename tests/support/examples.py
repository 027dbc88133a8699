"""Shared by several test files: the classes of a folder, tiny networks, batches, and snapshots of all state."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Bounds, Inputs, Logits, Norm, PerExample, Rows, Score, Terms

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
EXAMPLES: dict[str, Callable[[], Any]] = {}
"""How the laws make an instance of a class that cannot be made without arguments, by class name."""


def modules_of(package: ModuleType) -> list[ModuleType]:
    """Import every file of a folder."""
    files = sorted(Path(str(package.__file__)).parent.glob("*.py"))
    return [importlib.import_module(f"{package.__name__}.{file.stem}") for file in files if file.stem != "__init__"]


def classes_in(module: ModuleType, base: type) -> list[type]:
    """Return the public concrete subclasses of `base` that a file defines."""
    own = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
    return [c for c in own if issubclass(c, base) and not inspect.isabstract(c) and not c.__name__.startswith("_")]


def find_classes(package: ModuleType, base: type) -> list[type]:
    """Return the public concrete subclasses of `base` in the files of a folder."""
    return [found for module in modules_of(package) for found in classes_in(module, base)]


def make(kind: type) -> Any:
    """Return an instance with defaults, or the example that the table above gives."""
    return EXAMPLES.get(kind.__name__, kind)()


def brief(kind: type, steps: int = 20) -> Any:
    """Return it with this many steps at most, for what holds whatever their number; 20 have APGD's checkpoints."""
    made = make(kind)
    return replace(made, steps=steps) if getattr(made, "steps", 0) > steps else made


# Networks and data


class Ripple(nn.Module):
    """A smooth bounded activation that is nowhere flat for long."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def network(kind: str = "plain", dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Return a smooth network from (2, 4, 4) to 3 logits, in train mode: "plain", "norm" or "dropout".

    The last has a frozen batch norm too: in eval mode inside a network in train mode, its weights without gradient.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if kind == "plain":
            layers: list[nn.Module] = [nn.Flatten(), nn.Linear(32, 16), Ripple(), nn.Linear(16, 3)]
        else:
            layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3)]
        if kind == "dropout":
            frozen = nn.BatchNorm1d(64).eval().requires_grad_(False)
            layers[4:4] = [frozen, nn.Dropout(0.3)]
        made = nn.Sequential(*layers).to(dtype)
        last = made[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(3 * scale)
    return made


def make_batch(n: int = 8, dtype: torch.dtype = torch.float32, seed: int = 0) -> Batch:
    """Return inputs in [0, 1], a fifth of the pixels saturated, in channels-last memory, with scattered ids."""
    draw = torch.Generator().manual_seed(seed)
    x = (torch.rand((n, 2, 4, 4), generator=draw, dtype=dtype) * 1.6 - 0.3).clamp(0, 1)
    y = torch.randint(3, (n,), generator=draw)
    return Batch(x.contiguous(memory_format=torch.channels_last), y, torch.randperm(10 * n, generator=draw)[:n])


def noise_for(batch: Batch, seed: int = 5) -> Noise:
    return Noise.of(seed, batch.ids)


def pick(batch: Batch, rows: Rows) -> Batch:
    """Return the batch of these rows."""
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows], batch.targets[rows])


def smoothed(batch: Batch, keep: float = 0.9) -> Batch:
    """Return the batch with smoothed labels of three classes to compare with."""
    targets = functional.one_hot(batch.y, 3).to(batch.x.dtype) * keep + (1 - keep) / 3
    return replace(batch, targets=targets)


def make_bounds(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Bounds:
    """Return the bounds (0, 1), bounds per feature (some of them closed), or None."""
    if kind != "per feature":
        return (0.0, 1.0) if kind == "unit" else None
    draw = torch.Generator().manual_seed(seed)
    low = -torch.rand(shape, generator=draw, dtype=dtype)
    return low, low + torch.rand(shape, generator=draw, dtype=dtype).mul(3).floor()


def inputs_within(threat: Threat, n: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Inputs:
    """Return inputs inside the bounds, about a third of the pixels at one of them."""
    like = torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    low, high = (limit.clamp(-1, 1) for limit in threat.limits(like))
    return (low + (like * 1.6 - 0.3) * (high - low)).clamp(low, high)


class _Once(torch.autograd.Function):
    """A gradient, handed on, whose derivative is refused in torch's words for operations that lack one."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise NotImplementedError("the derivative for 'once_backward' is not implemented.")


class _DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        once: Tensor = _Once.apply(gradients[0])
        return once


def differentiable_once(x: Tensor) -> Tensor:
    """Return x, through which there is no second derivative in any version of torch."""
    same: Tensor = _DifferentiableOnce.apply(x)
    return same


# Losses


def total(terms: Terms) -> Tensor:
    """Return what training minimises."""
    return torch.stack(list(terms.values())).sum()


def losses_held(model: nn.Module, x: Inputs, batch: Batch) -> PerExample:
    """Return the cross-entropies at x of a `network`, batch norm by the statistics of the batch: typed again here."""
    if len(model) == 4:  # type: ignore[arg-type]
        return functional.cross_entropy(model(x), batch.y, reduction="none")
    conv, norm, _, _, last = model  # type: ignore[misc]
    seen = conv(batch.x)
    mean, var = seen.mean((0, 2, 3)).view(1, -1, 1, 1), seen.var((0, 2, 3), correction=0).view(1, -1, 1, 1)
    h = (conv(x) - mean) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    return functional.cross_entropy(last(functional.softplus(h).flatten(1)), batch.y, reduction="none")


def assert_the_same_loss(found: Tensor, expected: Tensor, model: nn.Module, tolerance: float) -> None:
    """Assert the same loss and the same gradient to every weight."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    weights = list(model.parameters())
    slopes = (torch.autograd.grad(loss, weights) for loss in (found, expected))
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


# Scores


@dataclass(frozen=True, eq=False)
class Linear:
    """z -> <gradient, z>: the score with a known maximum over S(x)."""

    slope: Inputs

    def __call__(self, z: Inputs, rows: Rows) -> PerExample:
        return (z * self.slope[rows]).flatten(1).sum(1)


def linear_score(x: Inputs, seed: int) -> Linear:
    draw = torch.Generator().manual_seed(seed)
    return Linear(torch.randn(x.shape, generator=draw, dtype=x.dtype))


def bumpy_score(x: Inputs, seed: int) -> Score:
    """Return a smooth score with many local maxima, another one for each example."""
    draw = torch.Generator().manual_seed(seed)
    wave, shift = (torch.randn(x.shape, generator=draw, dtype=x.dtype) for _ in range(2))

    def score(z: Inputs, rows: Rows) -> PerExample:
        return ((3 * z * wave[rows] + shift[rows]).sin() + z * shift[rows]).flatten(1).sum(1)

    return score


# Looking


def snapshot(model: nn.Module, *tensors: Tensor) -> list[Any]:
    """Return all that an attack must leave alone, to be compared with `same`: of the model, and these tensors."""
    weights = [(w.detach().clone(), w.requires_grad, None if w.grad is None else w.grad.clone(), w._version)
               for w in model.parameters()]  # fmt: skip
    buffers = [(name, buffer.clone(), buffer.data_ptr()) for name, buffer in model.named_buffers()]
    modes = [module.training for module in model.modules()]
    given = [(t.detach().clone(), t.requires_grad, t.grad, t.stride(), t._version) for t in tensors]
    rng = torch.get_rng_state()
    return [weights, buffers, modes, given, rng]


def same(before: Any, after: Any) -> bool:
    """Tell whether two snapshots agree in every bit."""
    if isinstance(before, Tensor):
        equal = isinstance(after, Tensor) and before.shape == after.shape and before.dtype == after.dtype
        return equal and bool(((before == after) | ((before != before) & (after != after))).all())
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


@contextmanager
def untouched(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Assert that the block, however it ends, leaves the model, these tensors and torch's random state alone."""
    before = snapshot(model, *tensors)
    try:
        yield
    finally:
        names = ("weights", "buffers", "modes", "tensors", "random state")
        for name, was, now in zip(names, before, snapshot(model, *tensors), strict=True):
            assert same(was, now), f"the {name} changed"


def with_gradients(model: nn.Module) -> nn.Module:
    """Give every weight that learns a gradient, as the last step has left it."""
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.5) if weight.requires_grad else None
    return model


class Counted(nn.Module):
    """Counts the examples that pass a network: forward, backward to the inputs alone, backward to the weights.

    A forward that carries a tangent counts twice, and so does its backward. A backward counts as one to the weights if
    it reaches a weight in front of the network's own, which a gradient taken for the inputs alone does not, or if it
    reaches neither that nor the inputs, which a gradient taken for the network's own weights alone does not.
    """

    forward_mode: ClassVar[bool] = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.to_inputs = self.training_calls = 0
        self.reached_weights = self.passed = 0

    @property
    def to_weights(self) -> int:
        ends = self.to_inputs + self.reached_weights
        return self.reached_weights + max(self.passed - ends, 0)

    def forward(self, x: Inputs) -> Logits:
        tangent = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
        examples = len(x) * (1 if tangent is None else 2)
        self.forwards += examples
        self.training_calls += self.training

        def reach_inputs(gradient: Tensor) -> None:
            self.to_inputs += examples

        def reach_weights(gradient: Tensor) -> None:
            self.reached_weights += examples
            self.to_inputs -= examples  # the same backward came by there just before

        def pass_logits(gradient: Tensor) -> None:
            self.passed += examples

        if any(weight.requires_grad for weight in self.parameters()):
            front = torch.zeros((), dtype=x.dtype, requires_grad=True) * 1
            front.register_hook(reach_weights)
            x = x + front
        if x.requires_grad:
            x.register_hook(reach_inputs)
        logits: Logits = self.inner(x)
        if logits.requires_grad and x.requires_grad:
            logits.register_hook(pass_logits)
        return logits
