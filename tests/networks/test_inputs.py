"""First layers: what they compute, and that a network that expects other inputs is recognised."""

import pytest
import torch
from torch import nn

from unperturbed import Recipe, Threat, evaluate, train
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.architectures.normalise import Normalise
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.chance import expected_layer
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.examinations.runner import diagnose
from unperturbed.methods.erm import ERM
from unperturbed.networks.inputs import IMAGENET, FirstLayer, are_bytes, missing_layer, prepared, read_numbers
from unperturbed.networks.logits import LogitsOnly, unwrapped

X = (255 * torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)).square()).round() / 255
Y = torch.bucketize(X.mean((1, 2, 3)), torch.tensor([0.29, 0.33, 0.37]))


class Brightness(nn.Module):
    """Right on inputs as `seen` makes them: the nearest of four levels of brightness."""

    def __init__(self, seen: nn.Module) -> None:
        super().__init__()
        levels = torch.tensor([0.26, 0.31, 0.35, 0.4])
        self.register_buffer("levels", seen(levels.view(4, 1, 1, 1).expand(4, 3, 4, 4)).mean((1, 2, 3)))
        self.slope = nn.Parameter(torch.tensor(1000.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distance: torch.Tensor = -self.slope * (x.mean((1, 2, 3))[:, None] - self.levels).square()
        return distance


def layer(scale: float = 1.0, numbers: tuple[float, ...] = (0.0, 1.0)) -> nn.Module:
    half = len(numbers) // 2
    return FirstLayer(nn.Identity(), scale, numbers[:half], numbers[half:])


def test_the_first_layer_computes_what_it_says() -> None:
    found = prepared(nn.Identity(), scale=255.0, normalise=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))(X)
    expected = (255 * X - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([4.0, 5, 6]).view(3, 1, 1)
    assert torch.equal(found, expected)
    assert prepared(model := nn.Identity()) is model
    wrapped = prepared(nn.Linear(2, 2), output=1, scale=2.0)
    assert isinstance(wrapped, LogitsOnly) and isinstance(unwrapped(wrapped), nn.Linear)


@pytest.mark.parametrize(
    ("seen", "option"),
    [
        (layer(255.0), "--scale 255"),
        (layer(numbers=IMAGENET), "--normalise imagenet"),
        (layer(numbers=(*X.mean((0, 2, 3)).tolist(), *X.std((0, 2, 3)).tolist())), "--normalise 0.3"),
        (layer(numbers=(0.5, 0.5)), "--normalise 0.5,0.5"),
    ],
)
def test_a_network_that_expects_other_inputs_is_recognised(seen: nn.Module, option: str) -> None:
    said = missing_layer(Brightness(seen), X, Y)
    assert said is not None and option in said


def test_a_network_that_is_right_or_is_wrong_everywhere_is_not_accused() -> None:
    assert missing_layer(Brightness(nn.Identity()), X, Y) is None
    assert missing_layer(Brightness(layer(255.0)), X[:1], Y[:1]) is None
    one, x = nn.Linear(1, 2), torch.linspace(0.01, 0.99, 40)[:, None]  # wrong as it is, at chance behind --scale 255
    one.weight.data, one.bias.data = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -0.5])
    y = (x[:, 0] < 0.5).long()
    assert float((one(x).argmax(1) == y).double().mean()) == 0.0
    assert missing_layer(one, x, y) is None
    torch.manual_seed(0)
    assert missing_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), X, Y) is None


def test_a_scale_of_255_is_proposed_for_bytes_only_and_nothing_for_a_handful_of_examples() -> None:
    network = Brightness(layer(255.0))
    assert "--scale 255" not in str(missing_layer(network, X + 0.3 / 255, Y)), "the inputs were no bytes"
    rows = torch.stack([(Y == label).nonzero()[0, 0] for label in range(4)])
    assert missing_layer(network, X[rows], Y[rows]) is None


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([0.0, 17.0, 255.0], True),
        ([0.0, 0.5, 200.0], False),
        ([0.0, 255.0], False),
        ([0.0, 30.0, 80.0], False),
        ([-1.0, 3.0, 200.0], False),
        ([0.0, 3.0, 300.0], False),
    ],
)
def test_bytes_are_whole_numbers_to_255(values: list[float], answer: bool) -> None:
    assert are_bytes(torch.tensor(values)) is answer


def warnings_of(model: nn.Module, command: str) -> tuple[str, ...]:
    threat = Threat("Linf", 0.001)
    if command == "evaluate":
        return evaluate(model, (X, Y), threat, "apgd-ce").warnings
    if command == "curve":
        return minimum_norm(model, (X, Y), threat, Suite("one", (FAB(steps=2),), "a test")).warnings
    if command == "diagnose":
        return diagnose(model, (X, Y), threat, diagnostics=()).notes
    recipe = Recipe(epochs=1, optimiser="sgd", lr=1e-9, validation=0.5)
    return train(model, (X, Y), threat, ERM(), recipe, device="cpu").warnings


@pytest.mark.parametrize("command", ["evaluate", "curve", "diagnose", "train"])
def test_every_measurement_gives_the_line_that_mends_it(command: str) -> None:
    assert any("Add --scale 255" in text for text in warnings_of(Brightness(layer(255.0)), command))
    mended = warnings_of(prepared(Brightness(layer(255.0)), scale=255.0), command)
    assert not any("--scale" in text or "chance" in text for text in mended)


@pytest.mark.parametrize("numbers", [(0.5,), (0.5, 0.0), (0.5, float("nan")), (0.5, -1.0)])
def test_nonsense_is_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        prepared(nn.Identity(), normalise=numbers)
    with pytest.raises(InputError, match="2 means, but inputs have 3"):
        prepared(nn.Identity(), normalise=(0.5, 0.5, 1.0, 1.0))(X)


def test_numbers_are_read() -> None:
    assert read_numbers("imagenet", "--normalise") == IMAGENET and read_numbers(None, "") is None
    with pytest.raises(InputError, match="--normalise is 'a,b'"):
        read_numbers("a,b", "--normalise")


def test_a_network_that_comes_right_without_confidence_is_not_accused() -> None:
    """Small logits are those of a network of a few steps, or of none."""
    network = Brightness(layer(numbers=(0.5, 0.5)))
    assert missing_layer(network, X, Y) is not None
    network.slope.data.mul_(1e-2)
    assert missing_layer(network, X, Y) is None


def test_a_model_of_another_library_normalises_itself() -> None:
    network = Brightness(layer(255.0))
    assert expected_layer(network, X, Y) is not None
    nothing = Normalise((0.0,), (1.0,))
    assert expected_layer(LibraryModel(network, nn.Identity(), nothing, "timm:a", {}), X, Y) is None
