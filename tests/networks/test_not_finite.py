"""The part of a network in which the gradient stops being finite is named by its path."""

import pytest
import torch
from torch import Tensor, nn

from support.toys import Function, mlp
from unperturbed.networks.logits import LogitsOnly
from unperturbed.networks.not_finite import where_not_finite
from unperturbed.networks.precision import InPrecision
from unperturbed.types import Inputs, Logits

X = torch.rand(4, 6)
X[:, 0] = 0.0


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Beside(nn.Module):
    """A root beside a linear map of the same input: only one of them has the infinite slope."""

    def __init__(self) -> None:
        super().__init__()
        self.honest, self.root, self.head = nn.Linear(6, 6), Root(), nn.Linear(6, 3)

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.head(self.honest(x) + self.root(x))
        return logits


class InForward(nn.Module):
    """A root in the forward of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(6, 3)

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.inner(x.sqrt())
        return logits


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (nn.Sequential(Root(), mlp(6, 3)), "`0` (Root)"),
        (nn.Sequential(nn.Identity(), nn.Sequential(Root(), nn.Identity()), mlp(6, 3)), "`1.0` (Root)"),
        (nn.Sequential(nn.ReLU(inplace=False), Root(), mlp(6, 3)), "`1` (Root)"),
        (Beside(), "`root` (Root)"),
        (InForward(), "the forward of the network itself (InForward)"),
        (LogitsOnly(nn.Sequential(Root(), mlp(6, 3))), "`0` (Root)"),
        (InPrecision(LogitsOnly(InForward())), "the forward of the network itself (InForward)"),
        (mlp(6, 3), None),
    ],
)
def test_the_innermost_part_is_named_and_no_innocent_one(model: nn.Module, place: str | None) -> None:
    before = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert where_not_finite(model, X, lambda logits: logits[:, 0]) == place
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == before


def test_a_loss_that_spoils_the_gradient_itself_accuses_no_part() -> None:
    assert where_not_finite(mlp(6, 3), X, lambda logits: (0 * logits[:, 0]).sqrt()) is None


def test_a_network_that_raises_is_not_named_for_it() -> None:
    def fails(x: Inputs) -> Logits:
        raise ValueError

    assert where_not_finite(Function(fails), X, lambda logits: logits[:, 0]) is None
