import copy

import pytest
import torch
from torch import Tensor, nn

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.errors import InputError
from unperturbed.weights.files import named_models

TINY: dict[str, dict[str, object]] = {
    "small-cnn": {"width": 3},
    "mlp": {"hidden": (7, 5)},
    "preact-resnet": {"depth": 10, "width": 2},
    "wide-resnet": {"depth": 10, "width": 1},
}
KINDS = named_models()
IMAGES = [name for name in KINDS if name != "mlp"]


def tiny(name: str, input_shape: tuple[int, ...] = (3, 16, 16), **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[name](**{"input_shape": input_shape, "classes": 4, **TINY.get(name, {}), **arguments})


def inputs(n: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def test_the_folder_holds_these_models() -> None:
    assert KINDS == {"small-cnn": SmallCNN, "mlp": MLP, "preact-resnet": PreActResNet, "wide-resnet": WideResNet}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("activation", ["relu", "silu", "softplus"])
def test_logits_have_a_row_an_example_and_gradients_reach_every_weight(name: str, activation: str) -> None:
    model = tiny(name, activation=activation)
    x = inputs(6, 3, 16, 16).requires_grad_(True)
    logits = model(x)
    assert logits.shape == (6, 4) and logits.dtype == torch.float32 and logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert x.grad is not None and (x.grad.flatten(1).norm(dim=1) > 0).all()
    for weight_name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), weight_name
        assert weight.grad.norm() > 0, weight_name


@pytest.mark.parametrize("name", KINDS)
def test_a_few_steps_fit_a_handful_of_examples(name: str) -> None:
    model = tiny(name)
    x, y = inputs(8, 3, 16, 16), torch.arange(8) % 4
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", KINDS)
def test_normalisation_happens_inside_before_everything_else(name: str) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    inside, bare = tiny(name, mean=mean, std=std).eval(), tiny(name).eval()
    x = inputs(3, 3, 16, 16)
    by_hand = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(inside(x), bare(by_hand))
    assert not torch.allclose(inside(x), bare(x))
    assert {"normalise.mean", "normalise.std"} <= inside.state_dict().keys()


@pytest.mark.parametrize("name", KINDS)
def test_initial_weights_follow_the_global_seed(name: str) -> None:
    first, again = tiny(name).state_dict(), tiny(name).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    torch.manual_seed(1)
    other = KINDS[name](**{"input_shape": (3, 16, 16), "classes": 4, **TINY[name]}).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", IMAGES)
def test_channels_last_gives_the_same_logits(name: str) -> None:
    model = tiny(name).eval()
    x = inputs(3, 3, 16, 16)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_float64_throughout(name: str) -> None:
    model = tiny(name, mean=(0.1,), std=(0.5,)).double()
    assert model(inputs(2, 3, 16, 16).double()).dtype == torch.float64


@pytest.mark.parametrize("name", KINDS)
def test_the_graph_is_traced_whole(name: str) -> None:
    """Nothing in a forward pass depends on the values, so that one compiled graph serves."""
    model = tiny(name).eval()
    x = inputs(2, 3, 16, 16)
    exported = torch.export.export(model, (x,), strict=False).module()
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("input_shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 13)])
def test_images_of_any_size(name: str, input_shape: tuple[int, ...]) -> None:
    assert tiny(name, input_shape)(inputs(2, *input_shape)).shape == (2, 4)


def test_vectors_and_no_hidden_layer() -> None:
    assert MLP(input_shape=(29,))(inputs(3, 29)).shape == (3, 2)
    linear = MLP(input_shape=(5,), hidden=(), mean=(0.0, 1.0, 2.0, 3.0, 4.0), std=(2.0,))
    x = inputs(3, 5)
    layer = linear.layers[-1]
    torch.testing.assert_close(linear(x), (x - torch.arange(5)) / 2 @ layer.weight.T + layer.bias)


def test_sizes_of_the_usual_networks() -> None:
    """The counts of parameters that the field quotes for these architectures."""
    with torch.device("meta"):
        counts = [
            sum(weight.numel() for weight in model.parameters())
            for model in (PreActResNet(), WideResNet(), WideResNet(depth=34))
        ]
    assert counts == [11_172_170, 36_479_194, 46_160_474]


def test_depth_counts_the_layers() -> None:
    for depth in (10, 18, 26, 34):
        with torch.device("meta"):
            model = PreActResNet(depth=depth, width=1)
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(convolutions) + 1 == depth
    for depth in (10, 16, 28):
        with torch.device("meta"):
            wide = WideResNet(depth=depth, width=1)
        assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in wide.modules()) == depth - 3


@pytest.mark.parametrize("name", ["preact-resnet", "wide-resnet"])
def test_a_shortcut_starts_from_the_activated_input_where_the_shape_changes_and_else_from_the_input(name: str) -> None:
    model = tiny(name, depth=18 if name == "preact-resnet" else 16).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    stage = model.layer2 if name == "preact-resnet" else model.block2.layer
    for block, shortcut in ((stage[0], "shortcut" if name == "preact-resnet" else "convShortcut"), (stage[1], None)):
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        activated = block.bn1(x).relu()
        branch = block.conv2(block.bn2(block.conv1(activated)).relu())
        kept = getattr(block, shortcut)(activated) if shortcut else x
        torch.testing.assert_close(block(x), kept + branch)


def test_dropout_is_active_in_training_only() -> None:
    model = tiny("wide-resnet", dropout=0.5)
    x = inputs(2, 3, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("preact-resnet", {"depth": 19}, "no depth 19: choose one of 10, 18, 26, 34"),
        ("wide-resnet", {"depth": 30}, "no depth 30: it must be 6k + 4"),
        ("wide-resnet", {"depth": 4}, "no depth 4"),
        ("wide-resnet", {"dropout": 1.0}, "dropout is 1.0"),
        ("small-cnn", {"activation": "tanh"}, "unknown activation 'tanh': choose one of relu, silu, softplus"),
        ("small-cnn", {"input_shape": (1, 3, 3)}, "at least 4x4 pixels"),
        ("small-cnn", {"input_shape": (29,)}, "(29,): use the model mlp"),
        ("preact-resnet", {"input_shape": (29,)}, "use the model mlp"),
        ("small-cnn", {"width": 0}, "width is 0"),
        ("mlp", {"classes": 0}, "classes is 0"),
        ("mlp", {"hidden": (8, 0)}, "hidden[1] is 0"),
        ("mlp", {"input_shape": ()}, "input_shape ()"),
        ("mlp", {"input_shape": (0,)}, "input_shape[0] is 0"),
        ("wide-resnet", {"mean": (0.1, 0.2)}, "mean has 2 numbers"),
    ],
)
def test_bad_arguments_are_told_with_their_value(name: str, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as error:
        tiny(name, **arguments)
    assert told in str(error.value)
