"""Batch norms folded into the layers before them: the same network in eval mode."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import spectral_norm

from support.examples import untouched
from unperturbed.anatomy.folding import fold_batch_norms, folded
from unperturbed.architectures.preact_resnet import PreActResNet

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*")


def worn(model: nn.Module) -> nn.Module:
    """Give every batch norm averages and weights as if it had been trained."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model


class Net(nn.Module):
    """A convolution, a batch norm, and what a function makes of these and the input."""

    def __init__(self, function: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.conv, self.norm, x).relu().mean((2, 3)))


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3))


FOLDED = {
    "conv": lambda: convolutional(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
    "no bias, groups": lambda: convolutional(nn.Conv2d(2, 4, 3, bias=False, groups=2), nn.BatchNorm2d(4)),
    "not affine": lambda: convolutional(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "transposed": lambda: convolutional(nn.ConvTranspose2d(2, 4, 3, groups=2, stride=2), nn.BatchNorm2d(4)),
    "identity between": lambda: convolutional(nn.Conv2d(2, 4, 3), nn.Identity(), nn.BatchNorm2d(4)),
    "parametrised": lambda: convolutional(spectral_norm(nn.Conv2d(2, 4, 3)), nn.BatchNorm2d(4)),
    "reflected": lambda: convolutional(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)),
    "old weight norm": lambda: convolutional(old_weight_norm(nn.Conv2d(2, 4, 3)), nn.BatchNorm2d(4)),
    "in a function": lambda: Net(lambda conv, norm, x: norm(conv(x))),
}
KEPT = {
    "used elsewhere": lambda: Net(lambda conv, norm, x: norm(h := conv(x)) + h),
    "used twice": lambda: Net(lambda conv, norm, x: norm(norm(conv(x)))),
    "layer used twice": lambda: Net(lambda conv, norm, x: norm(conv(x)) + conv(2 * x)),
    "something between": lambda: Net(lambda conv, norm, x: norm(conv(x) + 1)),
    "in place between": lambda: Net(lambda conv, norm, x: norm(conv(x).mul_(2))),
    "before the layer": lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 6), nn.Flatten()),
    "by the batch": lambda: convolutional(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    "looked into": lambda: Net(lambda conv, norm, x: norm(conv(x)) * norm.weight[:, None, None]),
    "over tokens": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(36, 2), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(4, 3)
    ),
}
X = torch.rand(8, 2, 6, 6, generator=torch.Generator().manual_seed(3))


def built(make: Callable[[], nn.Module], trained: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = make().eval()
    model(X)
    return worn(model) if trained else model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_batch_norm_is_gone_and_nothing_else_has_changed(name: str) -> None:
    model = built(FOLDED[name]).train()
    other = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(4))
    if name != "old weight norm":
        copied = copy.deepcopy(model).eval()
    with untouched(model, X), torch.random.fork_rng([]):
        before = torch.get_rng_state()
        result = folded(model, X)
        assert torch.equal(torch.get_rng_state(), before)
    assert norms(result.model) == 0 and len(result.into) == 1 and not result.notes
    expected = model.eval() if name == "old weight norm" else copied
    torch.testing.assert_close(result.model.eval()(other), expected(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_what_would_be_another_network_is_not_folded(name: str, trained: bool) -> None:
    """Not even where the batch norm is new and passes everything on as it is."""
    model = built(KEPT[name], trained)
    with untouched(model, X):
        result = folded(model, X)
    assert norms(result.model) == 1 and not result.into
    torch.testing.assert_close(result.model.eval()(X), model.eval()(X))
    assert bool(result.notes) == (name in ("used elsewhere", "looked into", "over tokens"))


def test_one_that_may_not_be_folded_does_not_keep_the_others() -> None:
    """In a pre-activation network, the batch norms within the blocks go, and those at their beginnings stay."""
    torch.manual_seed(0)
    model = worn(PreActResNet(width=2, depth=10)).eval()
    x = torch.rand(2, 3, 32, 32)
    result = folded(model, x)
    assert result.into == {f"layer{k}.0.bn2": f"layer{k}.0.conv1" for k in (1, 2, 3, 4)}
    assert result.notes == ("layer1.0.bn1 is not folded into conv1: the network would then be another one",)
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_network_without_batch_norms_is_not_said_to_lack_a_copy() -> None:
    """Also where its logits are not finite, so that no copy agrees with it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).eval()
    assert folded(model, torch.full((2, 2, 6, 6), torch.nan)).notes == ()


def test_only_the_network_is_returned() -> None:
    model = built(FOLDED["conv"]).eval()
    torch.testing.assert_close(fold_batch_norms(model, X)(X), model(X), rtol=1e-5, atol=1e-5)
