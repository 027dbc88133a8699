"""Which parts a network is taken to be made of, and that their outputs are what they were when the parts ended."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from support.architectures import EncoderBlock, Grouped, InvertedResidual, built, images
from support.examples import untouched
from unperturbed.anatomy.blocks import blocks, features
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.errors import RunError
from unperturbed.types import Inputs, Logits

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))


def names(model: nn.Module, x: Inputs) -> list[str]:
    return [block.name for block in blocks(model, x)[0]]


class Of(nn.Module):
    """A module given by its parts and a function of them."""

    def __init__(self, function: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def pair() -> nn.Sequential:
    """Return two parts made of parts."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)))


class Plain(nn.Module):
    """A part made of parts, of the kind that is a block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.b(self.a(x).tanh())
        return out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision", ["conv_proj", "encoder.layers.0", "encoder.layers.1", "encoder.ln", "logits"]),
        ("timm", ["patch_embed.proj", "blocks.0", "blocks.1", "norm", "logits"]),
        ("sequence first", ["embed", "layers.0", "layers.1", "logits"]),
        ("grouped", ["features.0.0", "features.0.1", "features.1", "features.2", "logits"]),
        ("mlp", ["layers.1", "layers.3", "logits"]),
        ("resnet", ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "bn", "logits"]),
    ],
)
def test_the_blocks_are_those_that_a_reader_would_name(name: str, expected: list[str]) -> None:
    found, left_out = blocks(built(name), images(2))
    assert [block.name for block in found] == expected and left_out == ()


def test_stages_are_opened_and_residual_blocks_are_not() -> None:
    wide = names(WideResNet((3, 8, 8), 3, depth=16, width=1), images(2))
    assert wide == ["conv1", *(f"block{k}.layer.{j}" for k in (1, 2, 3) for j in (0, 1)), "bn1", "logits"]
    assert names(SmallCNN((3, 8, 8)), images(2)) == ["layers.0", "layers.2", "layers.5", "logits"]


def test_a_network_behind_another_layer_is_opened_like_the_network() -> None:
    model = PreActResNet((3, 8, 8), 3, depth=10, width=4)
    alone, behind = names(model, images(2)), names(nn.Sequential(nn.Identity(), model), images(2))
    assert behind == [f"1.{name}" for name in alone[:-1]] + ["logits"]


def test_what_pools_without_a_module_is_opened() -> None:
    body = Of(lambda self, x: self.layers(x) / 2, layers=nn.Sequential(Plain(), Plain()))
    assert names(nn.Sequential(body, nn.Linear(6, 3)), X) == ["0.layers.0", "0.layers.1", "logits"]


def test_a_residual_connection_or_a_parallel_branch_makes_a_block() -> None:
    head = nn.Linear(6, 3)
    around = Of(lambda self, x: x + self.inside(x), inside=nn.Linear(6, 6))
    assert names(nn.Sequential(around, head), X) == ["0", "logits"]
    wrapped = Of(lambda self, x: self.inside(x).tanh(), inside=nn.Linear(6, 6))
    assert names(nn.Sequential(wrapped, head), X) == ["0.inside", "logits"]
    parallel = Of(lambda self, x: self.left(x) + self.right(x), left=pair(), right=pair())
    assert names(nn.Sequential(parallel, head), X) == ["0", "logits"]
    branches = Of(lambda self, x: sum(part(x) for part in self.all), all=nn.ModuleList(pair()))
    assert names(nn.Sequential(branches, head), X) == ["0", "logits"]
    skipping = Of(lambda self, x: x + self.all[1](self.all[0](x)), all=nn.ModuleList(pair()))
    assert names(nn.Sequential(skipping, head), X) == ["0", "logits"]
    chained = Of(lambda self, x: self.all[1](self.all[0](x)) + 1, all=nn.ModuleList(pair()))
    assert names(nn.Sequential(chained, head), X) == ["0.all.0.0", "0.all.1.0", "logits"]


def test_a_kind_of_block_is_one_also_where_it_has_no_residual_connection() -> None:
    model = Grouped().eval()
    assert isinstance(model.features[1], InvertedResidual) and not model.features[1].residual
    assert "features.1" in names(model, images(2))


def test_what_makes_a_weight_belongs_to_the_layer() -> None:
    layer = parametrizations.orthogonal(nn.Linear(6, 6, bias=False))
    assert names(nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 3)), X) == ["0", "logits"]
    found, left_out = blocks(nn.Sequential(layer), X)
    assert [block.name for block in found] == ["logits"] and left_out == ()


def test_a_network_of_one_layer_has_its_logits_only() -> None:
    found, _ = blocks(nn.Linear(6, 3), X)
    assert [block.name for block in found] == ["logits"] and found[0].size == 3


def test_a_block_called_twice_is_listed_twice() -> None:
    model = Of(lambda self, x: self.head(self.same(self.same(x).tanh())), same=nn.Linear(6, 6), head=nn.Linear(6, 3))
    found, _ = blocks(model, X)
    assert [block.name for block in found] == ["same", "same#2", "logits"]
    once = model.same(X)
    first, second, _ = features(model, X, found)
    assert torch.equal(first, once) and torch.equal(second, model.same(once.tanh()))
    twice = nn.Sequential(model.same, nn.ReLU(), model.same, nn.ReLU(), model.head)
    assert names(twice, X) == ["0", "0#2", "logits"]


def test_tuples_and_dicts_stand_for_their_first_floating_point_tensor() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        _, (h, _) = self.get_submodule("tuple")(x)
        out: Tensor = self.get_submodule("head")(self.get_submodule("dict")(h)["h"])
        return out

    inside = Of(lambda self, x: (torch.arange(3), (self.linear(x).relu(), x)), linear=Plain())
    named = Of(lambda self, x: {"ids": torch.arange(2), "h": self.linear(x) + x}, linear=Plain())
    model = Of(forward, tuple=inside, dict=named, head=nn.Linear(6, 3))
    found, left_out = blocks(model, X)
    assert [block.name for block in found] == ["tuple", "dict", "logits"] and left_out == ()
    first, second, _ = features(model, X, found)
    h = inside.linear(X).relu()
    torch.testing.assert_close(first, h)
    torch.testing.assert_close(second, named.linear(h) + h)


def test_what_cannot_be_looked_at_is_told_with_the_reason() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        part = self.get_submodule
        part("constant")(torch.ones(1, 6))
        part("counts")(x)
        folded = part("folded")(x.reshape(-1, 2))
        out: Tensor = part("head")(x + part("similar")(x).mean() + folded.mean())
        return out

    model = Of(
        forward,
        unused=nn.Linear(6, 6),
        constant=nn.Linear(6, 6),
        counts=Of(lambda self, x: self.linear(x).argmax(1), linear=nn.Linear(6, 6), other=nn.Linear(6, 6)),
        folded=nn.Linear(2, 2),
        similar=Of(lambda self, x: self.a(x) @ self.b(x).T, a=nn.Linear(6, 6), b=nn.Linear(6, 6)),
        head=nn.Linear(6, 3),
    )
    found, left_out = blocks(model, X)
    assert [block.name for block in found] == ["logits"]
    reasons = {line.split(" is left out: ")[0]: line.split(" is left out: ")[1] for line in left_out}
    assert reasons["unused"] == "it is never called."
    assert reasons["counts"] == "its output holds no floating-point tensor."
    for name, shapes in {"constant": "(1, 6)", "folded": "(6, 2)", "similar": "(2, 2)"}.items():
        assert shapes in reasons[name] and "no axis that counts the examples" in reasons[name]
    assert len(reasons) == 5


def test_the_axis_of_the_examples_is_found() -> None:
    model = built("sequence first").eval()
    found, _ = blocks(model, images(3))
    assert [block.axis for block in found] == [1, 1, 1, 0] and [block.size for block in found] == [64, 64, 64, 3]
    together = features(model, images(3), found)
    for k in range(3):
        for row, alone in zip(together, features(model, images(3)[k : k + 1], found), strict=True):
            torch.testing.assert_close(row[k : k + 1], alone)


def test_what_follows_in_place_does_not_change_what_is_seen() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    found, _ = blocks(model, X)
    with torch.no_grad():
        first, logits = features(model, X, found)
    assert torch.equal(first, model[0](X)) and bool((first < 0).any())
    assert torch.equal(logits, model(X))
    writing = nn.Sequential(nn.ReLU(inplace=True), *model)  # into its own input
    before = X.clone()
    blocks(writing, X - 0.5)
    assert torch.equal(X, before)


def test_features_keep_their_graph_and_are_those_of_each_block() -> None:
    model = built("torchvision").eval()
    assert isinstance(model.get_submodule("encoder.layers.0"), EncoderBlock)
    found, _ = blocks(model, images(3))
    x = images(3).requires_grad_()
    values = features(model, x, found)
    h = model.get_submodule("conv_proj")(x)
    torch.testing.assert_close(values[0], h.flatten(1))
    torch.testing.assert_close(values[-1], model(x))
    for value in values:
        (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_a_network_that_draws_random_numbers_draws_the_same_again() -> None:
    model = Of(lambda self, x: self.head(x + torch.randn_like(x)), head=nn.Linear(6, 3))
    found, _ = blocks(model, X)
    state = torch.get_rng_state()
    first, again = features(model, X, found), features(model, X, found)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_left_behind() -> None:
    model = built("grouped")  # in train mode
    with untouched(model):
        found, _ = blocks(model, images(3))
        assert not any(module._forward_hooks for module in model.modules())
    broken = Of(lambda self, x: self.head(x) if len(x) > 1 else x / 0 + self.missing, head=nn.Linear(6, 3))
    with pytest.raises(AttributeError), untouched(broken):
        blocks(broken, X)
    assert not any(module._forward_hooks for module in broken.modules())


def test_a_block_that_is_not_reached_again_is_an_error() -> None:
    def forward(self: nn.Module, x: Tensor) -> Logits:
        out: Tensor = self.get_submodule("head")(self.get_submodule("first")(x) if x.mean() < 1 else x)
        return out

    model = Of(forward, first=nn.Linear(6, 6), head=nn.Linear(6, 3))
    found, _ = blocks(model, X)
    with pytest.raises(RunError, match="first"):
        features(model, X + 10, found)
