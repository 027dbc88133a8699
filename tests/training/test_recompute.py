"""Activations that are computed again: the same bits, in less memory."""

import pytest
import torch
from torch import Tensor, nn

from support.examples import make_batch, noise_for
from support.toys import state
from unperturbed.methods.at import AT
from unperturbed.networks.modes import own_randomness
from unperturbed.threat import Threat
from unperturbed.training.recompute import recomputed
from unperturbed.training.step import accumulate
from unperturbed.types import Inputs, Logits


class Residual(nn.Module):
    """A block with batch norm and dropout beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.BatchNorm1d(4 * width),
            nn.SiLU(),
            nn.Dropout(0.3),
            nn.Linear(4 * width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + torch.as_tensor(self.layers(h))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks, self.last = (
            nn.Linear(32, 16),
            nn.ModuleList(Residual(16) for _ in range(3)),
            nn.Linear(16, 3),
        )

    def forward(self, x: Inputs) -> Logits:
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h)
        logits: Logits = self.last(h)
        return logits


def step(again: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Return gradient and buffers after a step, and the bytes that the loss's forward stores."""
    torch.manual_seed(0)
    model, batch, stored = Blocks(), make_batch(16), 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal stored
        stored += tensor.numel() * tensor.element_size()
        return tensor

    def backward(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    modules = list(model.blocks) if again else []
    with own_randomness(1, torch.device("cpu")), recomputed(modules):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            accumulate(model, model, AT(), batch, Threat("Linf", 0.1), noise_for(batch), 1, backward)
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert not any("forward" in vars(module) for module in model.modules())
    return gradients, dict(model.named_buffers()), stored


def test_gradients_and_running_averages_have_the_same_bits_in_less_memory() -> None:
    """A second forward that moved the averages, or drew another mask, would change them."""
    (gradients, buffers, stored), (plain, plain_buffers, plain_stored) = step(True), step(False)
    assert gradients.keys() == plain.keys() and len(plain) == 4 + 3 * 6
    for name, value in plain.items():
        assert torch.equal(gradients[name], value), name
    for name, value in plain_buffers.items():
        assert torch.equal(buffers[name], value), name
    assert stored < plain_stored / 3


def test_forwards_without_gradient_and_the_forwards_of_a_user_stay() -> None:
    model = Blocks().eval()
    user = model.blocks[0].forward
    model.blocks[0].forward = user  # type: ignore[method-assign]
    before, x = state(model), torch.rand(4, 32)
    with torch.no_grad():
        expected = model(x)
        with recomputed(list(model.blocks)):
            assert torch.equal(model(x), expected)
    assert vars(model.blocks[0])["forward"] == user and "forward" not in vars(model.blocks[1])
    assert state(model).keys() == before.keys()


def test_forwards_are_restored_after_an_error() -> None:
    model = Blocks()
    with pytest.raises(ZeroDivisionError), recomputed(list(model.blocks)):
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in model.modules())
