"""Modes are restored for each submodule, each weight and each buffer, whatever happens inside."""

import pytest
import torch
from torch import Tensor, nn

from support import network, same, snapshot, untouched, with_gradients
from unperturbed.modes import under_attack

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
def test_s4_each_submodule_gets_its_own_mode_back(mode: str) -> None:
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
def test_s5_weights_and_buffers_are_restored_after_an_exception(error: type[BaseException] | None) -> None:
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
