"""Modes are restored for each submodule, each weight and each buffer, whatever happens inside."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from support.calculus import gradient_error, weight_gradient
from support.examples import network, same, snapshot, untouched, with_gradients
from unperturbed.curvature.products import tangents
from unperturbed.errors import InputError
from unperturbed.networks.modes import (
    buffers_restored,
    clean_batch_stats,
    eager,
    is_eager,
    running_stats,
    under_attack,
)

X = torch.rand((8, 2, 4, 4), generator=torch.Generator().manual_seed(0))


def everything_that_a_forward_may_change(model: nn.Module) -> None:
    """Train-mode forwards and a backward, as careless code inside a block does them."""
    model.train()
    for weight in model.parameters():
        weight.requires_grad_(True)
    model(X)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)


def test_inside_all_is_in_eval_mode_and_frozen() -> None:
    model = network("dropout")
    with under_attack(model):
        assert not any(module.training for module in model.modules())
        assert not any(weight.requires_grad for weight in model.parameters())
        assert torch.equal(model(X), model(X)), "dropout is off"
        z = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(z).sum(), z)
        assert gradient.any()


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_each_submodule_gets_its_own_mode_back_s4(mode: str) -> None:
    """Not the whole model's: a batch norm frozen inside a model in train mode stays frozen."""
    model = network("dropout")
    if mode != "mixed":
        model.train(mode == "train")
    before = [module.training for module in model.modules()]
    assert len(set(before)) == (2 if mode == "mixed" else 1)
    with untouched(with_gradients(model)), under_attack(model):
        pass
    with under_attack(model):
        everything_that_a_forward_may_change(model)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_weights_and_buffers_are_restored_after_an_exception_s5(error: type[BaseException] | None) -> None:
    model = with_gradients(network("dropout"))
    before = snapshot(model)
    with pytest.raises(ValueError if error is None else error), under_attack(model):
        everything_that_a_forward_may_change(model)
        raise error or ValueError
    weights, buffers, modes = snapshot(model)[:3]
    assert same([w[:3] for w in before[0]], [w[:3] for w in weights])
    assert same(before[1], buffers) and before[2] == modes


def test_blocks_nest() -> None:
    model = network("dropout")
    with untouched(model), under_attack(model):
        with under_attack(model):
            model(X)
        assert not any(module.training for module in model.modules())
        assert not any(weight.requires_grad for weight in model.parameters())


def test_weights_that_several_modules_share_are_restored() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    with untouched(model), under_attack(model):
        model(X[:, 0, 0, :3])


class Rebinding(nn.Module):
    """Counts its calls in a buffer that it makes anew each time, in any mode."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return x


def test_buffers_that_a_forward_replaces_are_restored() -> None:
    model = Rebinding()
    with under_attack(model):
        model(X)
    assert float(model.calls) == 0


def test_looking_does_not_disturb_a_graph_that_waits_for_its_backward() -> None:
    """The graph holds the buffers of a frozen batch norm: restoring them must not count as a change."""
    model = network("dropout").eval()
    loss = model(X).square().sum()
    with under_attack(model):
        model(X)
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_buffers_alone_are_restored() -> None:
    """Modes and weights may change; buffers do not, whether they were written or replaced, and after an exception."""
    model = nn.Sequential(network("norm"), Rebinding())
    before = [buffer.clone() for buffer in model.buffers()]
    with pytest.raises(KeyError), buffers_restored(model):
        everything_that_a_forward_may_change(model)
        raise KeyError
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert model.training


# Batch norm at the clean batch's statistics

NORMS: dict[str, tuple[Callable[[], nn.modules.batchnorm._BatchNorm], tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(3), (7, 3)),
    "1d of sequences": (lambda: nn.BatchNorm1d(3), (4, 3, 5)),
    "2d": (lambda: nn.BatchNorm2d(3, momentum=0.3), (4, 3, 2, 2)),
    "3d": (lambda: nn.BatchNorm3d(3, eps=1e-2), (2, 3, 2, 2, 2)),
    "cumulative averages": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 3, 2, 2)),
    "without weights": (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 2, 2)),
    "without averages": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 2, 2)),
    "with neither": (lambda: nn.BatchNorm1d(3, affine=False, track_running_stats=False), (7, 3)),
}
every_norm = pytest.mark.parametrize("kind", NORMS)


def given(kind: str, seed: int) -> Tensor:
    """Return inputs for it, each batch with a mean and a spread of its own."""
    shape = NORMS[kind][1]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1 + seed) * x + seed


def normalised(norm: nn.Module, x: Tensor, clean: Tensor) -> Tensor:
    """Return x normalised by the statistics of another batch, by hand."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = clean.mean(axes, keepdim=True)
    var = (clean - mean).square().mean(axes, keepdim=True)
    h, shape = (x - mean) / (var + norm.eps).sqrt(), mean.shape
    return h if norm.weight is None else h * norm.weight.view(shape) + norm.bias.view(shape)


def close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@every_norm
def test_the_first_forward_is_the_ordinary_training_forward(kind: str) -> None:
    """Values, gradients to weights and inputs, running averages and their counter; over several batches."""
    norm = NORMS[kind][0]().double()
    ordinary, share = copy.deepcopy(norm), torch.randn(NORMS[kind][1], dtype=torch.float64)
    for seed in range(3):
        mine, theirs = given(kind, seed).requires_grad_(), given(kind, seed).requires_grad_()
        with clean_batch_stats(norm):
            out = norm(mine)
        expected = ordinary(theirs)
        close(out, expected)
        for a, b in zip(
            torch.autograd.grad((out.exp() * share).sum(), [mine, *norm.parameters()]),
            torch.autograd.grad((expected.exp() * share).sum(), [theirs, *ordinary.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
        for a, b in zip(norm.buffers(), ordinary.buffers(), strict=True):
            close(a, b)
    assert "forward" not in vars(norm)


def test_the_first_forward_is_the_ordinary_one_in_bfloat16_and_float32_too() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        norm, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5).to(dtype)
        ordinary = copy.deepcopy(norm)
        with clean_batch_stats(norm):
            out = norm(x.contiguous(memory_format=torch.channels_last))
        expected = ordinary(x)
        assert out.dtype == expected.dtype and out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out, expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=2e-2)
        torch.testing.assert_close(norm.running_var, ordinary.running_var)


@every_norm
def test_later_forwards_are_normalised_by_the_first_batch_and_move_nothing(kind: str) -> None:
    """Of any number of examples, also one, each independent of its company."""
    norm = NORMS[kind][0]().double()
    for weight in norm.parameters():
        weight.data.uniform_(0.5, 2.0)
    clean, other = given(kind, 0), given(kind, 2)
    with clean_batch_stats(norm):
        norm(clean)
        moved = [buffer.clone() for buffer in norm.buffers()]
        close(norm(other), normalised(norm, other, clean))
        close(norm(clean), normalised(norm, clean, clean))
        close(norm(other[1:2]), normalised(norm, other, clean)[1:2])
        leaf = other.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(norm(leaf)[1].square().sum(), leaf)
    assert gradient[1].any() and not gradient[[0, *range(2, len(other))]].any()
    assert all(torch.equal(a, b) for a, b in zip(moved, norm.buffers(), strict=True))
    with clean_batch_stats(norm):
        close(norm(other), normalised(norm, other, other))


@every_norm
def test_the_statistics_keep_their_graph_to_the_weights(kind: str) -> None:
    """The gradient of a difference of losses at two points, which constant statistics would get wrong."""
    shape = NORMS[kind][1]
    d = torch.Size(shape[1:]).numel()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        norm = NORMS[kind][0]()
        model = nn.Sequential(nn.Flatten(), nn.Linear(d, d), nn.Unflatten(1, shape[1:]), norm, nn.Flatten()).double()
    clean, other = given(kind, 0), given(kind, 1)

    def difference() -> Tensor:
        with clean_batch_stats(model):
            first = model(clean).sigmoid().square()
            return (model(other).sigmoid().square() - first).sum()

    def by_hand(detached: bool) -> Tensor:
        first, second = model[:3](clean), model[:3](other)
        ends = [normalised(norm, h, first.detach() if detached else first) for h in (second, first)]
        return (ends[0].sigmoid().square() - ends[1].sigmoid().square()).sum()

    assert gradient_error(difference, model) <= 1e-6
    mine = weight_gradient(difference(), model)
    close(mine, weight_gradient(by_hand(False), model))
    assert (mine - weight_gradient(by_hand(True), model)).norm() > 1e-2 * mine.norm()


def test_tangents_see_constant_statistics_from_the_first_forward_on() -> None:
    norm, x, v = nn.BatchNorm1d(3).double(), given("1d", 0), given("1d", 1)
    scale = (x.var(0, correction=0) + norm.eps).rsqrt()
    with clean_batch_stats(norm), tangents():
        for _ in range(2):
            out = forward_ad.unpack_dual(norm(forward_ad.make_dual(x, v)))
            close(out.primal, (x - x.mean(0)) * scale)
            close(out.tangent, v * scale)
    assert int(norm.num_batches_tracked) == 1
    assert all(forward_ad.unpack_dual(buffer).tangent is None for buffer in norm.buffers())


def test_frozen_batch_norms_stay_as_they_are() -> None:
    """And what has no batch norm in train mode is left alone altogether."""
    model = network("dropout")
    frozen = model[4]
    assert isinstance(frozen, nn.BatchNorm1d) and not frozen.training
    frozen.running_mean.normal_()
    with clean_batch_stats(model), running_stats(model):
        assert "forward" not in vars(frozen)
    before = [buffer.clone() for buffer in frozen.buffers()]
    with clean_batch_stats(model.eval()), untouched(model):
        assert not any("forward" in vars(module) for module in model.modules())
        model(X)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.buffers(), strict=True))


@pytest.mark.parametrize("block", [clean_batch_stats, running_stats])
def test_forwards_are_restored_after_an_exception(block: Callable[[nn.Module], object]) -> None:
    """Of all modules; the next forward is an ordinary one, by its own batch."""
    model, alone = network("norm"), network("norm")
    with pytest.raises(KeyError), block(model):  # type: ignore[attr-defined]
        assert is_eager()
        raise KeyError
    assert not is_eager() and not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model(X), alone(X))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), alone.buffers(), strict=True))


def test_the_same_statistics_are_entered_again_later() -> None:
    """After the block has ended, as a recomputation in the backward does; they are still the first batch's."""
    model, other = network("norm", torch.float64), 2 * X.double() + 1
    with clean_batch_stats(model) as again:
        model(X.double())
        expected = model(other)
    with again():
        assert torch.equal(model(other), expected)
    with pytest.raises(KeyError), again():
        raise KeyError
    assert not any("forward" in vars(module) for module in model.modules()) and not is_eager()
    assert not torch.allclose(model(other), expected)


@pytest.mark.parametrize("inner", ["again", "running", "fresh"])
def test_blocks_within_blocks_leave_the_outer_one_as_it_was(inner: str) -> None:
    model, other = network("norm", torch.float64), 2 * X.double() + 1
    with clean_batch_stats(model) as again:
        model(X.double())
        expected = model(other)
        moved = [buffer.clone() for buffer in model.buffers()]
        with {"again": again, "running": lambda: running_stats(model), "fresh": lambda: clean_batch_stats(model)}[
            inner
        ]():
            pass
        assert torch.equal(model(other), expected), "the first batch's statistics are still held"
        assert all(torch.equal(a, b) for a, b in zip(moved, model.buffers(), strict=True))


def test_a_forward_of_the_modules_own_is_put_back() -> None:
    """Other libraries, too, replace the forwards of single modules."""
    model = network("norm")
    norm = model[1]
    norm.forward = own = norm.forward
    with clean_batch_stats(model):
        assert norm.forward is not own
        model(X)
    assert vars(norm).get("forward") is own


def test_synchronised_batch_norms_are_refused() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network("norm"))
    with pytest.raises(InputError, match="SyncBatchNorm"), clean_batch_stats(model):
        pass
    with clean_batch_stats(model.eval()):
        pass


class Twice(nn.Module):
    """The same batch norm in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.norm(3 * self.second(self.norm(self.first(x)).tanh()) + 2).tanh()
        return h


def test_a_batch_norm_in_two_places_has_statistics_for_each() -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Twice().double()
    alone, x = copy.deepcopy(model), X.double()
    expected = alone(x)
    with clean_batch_stats(model) as again:
        close(model(x), expected)
        close(model(x[:3]), expected[:3])
        close(model(x), expected)
    with again():
        close(model(x[2:]), expected[2:])
    for mine, theirs in zip(model.buffers(), alone.buffers(), strict=True):
        close(mine, theirs)


class Activated(nn.BatchNorm2d):
    """With torch's forward and more."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h).relu()


class Copied(nn.BatchNorm2d):
    """With its activation in a forward that is torch's, written out, as those of timm's networks have."""

    def forward(self, h: Tensor) -> Tensor:
        self.num_batches_tracked.add_(int(self.training))
        share = 0.0 if self.momentum is None else self.momentum
        if self.momentum is None and self.training:
            share = 1.0 / float(self.num_batches_tracked)
        out = functional.batch_norm(
            h, self.running_mean, self.running_var, self.weight, self.bias, self.training, share, self.eps
        )
        return functional.silu(out)


class Named(nn.BatchNorm2d):
    """With torch's forward."""


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("kind", "activation"), [(Activated, nn.ReLU()), (Copied, nn.SiLU()), (Named, nn.Identity())])
def test_batch_norms_with_a_forward_of_their_own_keep_what_they_do_beside(
    kind: Any, activation: nn.Module, momentum: float | None
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), kind(4, momentum=momentum), nn.Flatten(), nn.Linear(16, 3)).double()
    same = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=momentum), activation, *copy.deepcopy(model[2:])
    )
    same = same.double()
    same[0].load_state_dict(model[0].state_dict())
    x, further = X.double(), X.double() + 0.1
    for mode in (clean_batch_stats, running_stats, clean_batch_stats):
        found = []
        for each in (model, same):
            with mode(each):
                out = each(x) + each(further).square()
                found.append((out, *torch.autograd.grad(out.sum(), [each[0].weight, each[1].weight])))
        for mine, theirs in zip(*found, strict=True):
            close(mine, theirs)
        for mine, theirs in zip(model.buffers(), same.buffers(), strict=True):
            close(mine, theirs)
    assert int(same[1].num_batches_tracked) == 2


@pytest.mark.parametrize("mode", [clean_batch_stats, running_stats])
def test_batch_norms_that_normalise_in_a_way_of_their_own_are_refused(mode: Any) -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, h: Tensor) -> Tensor:
            return (h - h.mean((0, 2, 3), keepdim=True)) / h.std((0, 2, 3), keepdim=True)

    with mode(model := nn.Sequential(Own(2))), pytest.raises(InputError, match="Own is a batch norm that does not"):
        model(X)


def test_running_averages_normalise_without_being_moved_while_all_else_trains() -> None:
    """Batch norm as in eval mode, dropout as in train mode; gradients to the weights are those of eval mode."""
    model = network("norm", torch.float64)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    with untouched(model), running_stats(model):
        assert all(module.training for module in model.modules())
        out = model(X.double())
        mine = weight_gradient(out.square().sum(), model)
    assert out.requires_grad
    model.eval()
    close(out, model(X.double()))
    close(mine, weight_gradient(model(X.double()).square().sum(), model))
    assert mine.any()
    noisy = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(16)).double()
    with running_stats(noisy):
        assert not torch.equal(noisy(X.double().view(-1, 16)), noisy(X.double().view(-1, 16)))


def test_running_averages_serve_where_there_are_any() -> None:
    """Without any, the batch's own statistics remain; without weights, there are none to apply."""
    bare, plain = nn.BatchNorm1d(3, track_running_stats=False).double(), nn.BatchNorm1d(3, affine=False).double()
    x = given("1d", 1)
    with running_stats(bare):
        close(bare(x), normalised(bare, x, x))
    with running_stats(plain):
        close(plain(x), x / (1 + plain.eps) ** 0.5)
    with running_stats(plain.eval()):
        assert "forward" not in vars(plain)


def test_eager_blocks_nest_and_end() -> None:
    assert not is_eager()
    with pytest.raises(KeyError), eager():
        with eager():
            assert is_eager()
        assert is_eager()
        raise KeyError
    assert not is_eager()
