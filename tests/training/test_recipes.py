"""Recipes by name: the published numbers, the kinds of data that they are for, and given settings, which win."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from unperturbed.data.split import Data, array_split
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.fgsm import N_FGSM, RS_FGSM
from unperturbed.methods.free import Free
from unperturbed.methods.trades import TRADES
from unperturbed.training.recipe import Recipe
from unperturbed.training.recipes import named_recipe

WITH_NORM = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
WITHOUT = nn.Sequential(nn.Conv2d(3, 4, 3))


def data(*shape: int, n: int = 40, name: str = "pictures") -> Data:
    split = array_split(torch.zeros(n, *shape), torch.arange(n) % 10)
    return Data(name, split, None, tuple("0123456789"))


def changed(
    name: str,
    examples: Data,
    method: Method,
    base: Recipe | None = None,
    given: tuple[str, ...] = (),
    model: nn.Module = WITH_NORM,
) -> dict[str, Any]:
    """Return the settings that differ from the defaults."""
    recipe = named_recipe(name, base or Recipe(), examples, model, method, given)
    return {key: value for key, value in asdict(recipe).items() if value != asdict(Recipe())[key]}


def test_the_default_changes_nothing() -> None:
    assert changed("default", data(3, 8, 8), AT()) == {}


def test_strong_is_the_protocol_of_the_benchmark() -> None:
    """On its 50,000 images, with its 49,000 for training and its 100 epochs, the decay is the published one."""
    base = Recipe(epochs=100, validation=0.02, batch_size=128)
    protocol = changed("strong", data(3, 1, 1, n=50_000), AT(), base, ("epochs", "validation", "batch_size"))
    assert protocol == {
        **{"epochs": 100, "validation": 0.02, "batch_size": 128},
        **{"averaging": 0.9995, "label_smoothing": 0.4, "augment": "flip-crop"},
    }


def test_the_average_of_a_shorter_run_is_over_the_same_share_of_it() -> None:
    """2,000 steps of 38,200 in the benchmark; here 10 epochs of 900 // 32 = 28 steps."""
    assert changed("strong", data(4, n=1000), AT())["averaging"] == round(1 - 1 / (280 * 2000 / 38_200), 5)
    assert "averaging" not in changed("strong", data(4, n=40), AT(), Recipe(epochs=1), ("epochs",))  # a single step


@pytest.mark.parametrize(
    ("examples", "method", "expected"),
    [
        (data(3, 8, 8), AT(), {"augment": "flip-crop", "label_smoothing": 0.4}),
        (data(3, 8, 8), TRADES(), {"augment": "flip-crop"}),  # not in the benchmark
        (data(3, 8, 8, name="svhn"), AT(), {"augment": "crop", "label_smoothing": 0.4}),
        (data(1, 8, 8), AT(), {"label_smoothing": 0.4}),
        (data(4), AT(), {}),
    ],
    ids=["colour", "another method", "house numbers", "grey", "vectors"],
)
def test_strong_depends_on_data_and_method(examples: Data, method: Method, expected: dict[str, Any]) -> None:
    found = changed("strong", examples, method, Recipe(epochs=100), ("epochs",))
    assert found.pop("epochs") == 100 and found.pop("averaging") == round(1 - 1 / (100 * 2000 / 38_200), 5)
    assert found == expected


@pytest.mark.parametrize(
    ("examples", "method", "model", "expected"),
    [
        (data(3, 8, 8), RS_FGSM(), WITH_NORM, {"epochs": 15, "lr": 0.2, "augment": "flip-crop"}),
        (data(3, 8, 8), N_FGSM(), WITH_NORM, {"epochs": 30, "lr": 0.2, "augment": "flip-crop"}),
        (data(3, 8, 8), Free(), WITH_NORM, {"epochs": 80, "lr": 0.04, "augment": "flip-crop"}),
        (data(3, 8, 8), N_FGSM(), WITHOUT, {"epochs": 30, "augment": "flip-crop"}),  # Adam
        (
            data(3, 8, 8, name="svhn"),
            N_FGSM(),
            WITH_NORM,
            {"epochs": 30, "lr": 0.05, "augment": "crop", "ramp": 0.1667},
        ),
        (data(1, 8, 8), RS_FGSM(), WITHOUT, {"optimiser": "adam", "lr": 5e-3, "weight_decay": 0.0}),
        (
            data(1, 1, 1, n=10_000),
            RS_FGSM(),
            WITHOUT,
            {"optimiser": "adam", "lr": 5e-3, "weight_decay": 0.0, "batch_size": 100},
        ),
    ],
    ids=["rs-fgsm", "n-fgsm", "free", "no batch norm", "house numbers", "few grey images", "grey images"],
)
def test_fast_is_the_published_schedule(
    examples: Data, method: Method, model: nn.Module, expected: dict[str, Any]
) -> None:
    assert changed("fast", examples, method, model=model) == expected


def test_given_settings_win() -> None:
    given = Recipe(epochs=30, schedule="cosine", label_smoothing=0.1, augment="none")
    names = ("epochs", "schedule", "label_smoothing", "augment")
    strong = named_recipe("strong", given, data(3, 8, 8), WITH_NORM, AT(), names)
    assert [getattr(strong, name) for name in names] == [30, "cosine", 0.1, "none"] and strong.averaging is not None
    fast = named_recipe("fast", Recipe(optimiser="adam"), data(3, 8, 8), WITH_NORM, RS_FGSM(), ("optimiser",))
    assert (fast.lr, fast.epochs) == (None, 15)  # 0.2 is a rate for SGD
    fast = named_recipe("fast", Recipe(optimiser="sgd"), data(1, 8, 8), WITH_NORM, RS_FGSM(), ("optimiser",))
    assert (fast.optimiser, fast.lr) == ("sgd", None)


@pytest.mark.parametrize(
    ("name", "examples", "method", "message"),
    [
        ("stronger", data(4), AT(), "no recipe 'stronger': give default, strong or fast"),
        ("fast", data(3, 8, 8), AT(), "no published schedule of the method 'at': take one of rs-fgsm"),
        ("fast", data(4), RS_FGSM(), r"for images, but an example of pictures has shape \(4,\)"),
    ],
)
def test_what_no_protocol_covers_is_refused(name: str, examples: Data, method: Method, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_recipe(name, Recipe(), examples, WITH_NORM, method)
