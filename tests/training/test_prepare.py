from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from support.toys import Function, blobs, linear, mlp, uniform
from unperturbed.data.convert import as_data
from unperturbed.data.split import Data, array_split
from unperturbed.errors import InputError
from unperturbed.networks.device import find_device
from unperturbed.threat import Threat
from unperturbed.training.prepare import Examples, make_optimiser, prepare
from unperturbed.training.recipe import Recipe

THREAT = Threat("Linf", 0.1)
FABRIC = Fabric(accelerator="cpu", devices=1)


def prepared(recipe: Recipe, data: Any = None, extra: Any = None, model: nn.Module | None = None) -> Examples:
    chosen = model or linear(6, 3)
    return prepare(chosen, as_data(blobs(60) if data is None else data), extra, THREAT, recipe, FABRIC)


def test_weight_decay_is_for_matrices_and_kernels_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    model[0].weight.requires_grad_(False)
    decayed, spared = make_optimiser(model, Recipe(weight_decay=0.3)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(model[3].weight)] and decayed["weight_decay"] == 0.3
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[3].bias)
    }
    assert spared["weight_decay"] == 0


@pytest.mark.parametrize(
    ("optimiser", "norm", "kind", "lr"),
    [
        ("auto", True, torch.optim.SGD, 0.1), ("auto", False, torch.optim.Adam, 0.003),
        ("sgd", False, torch.optim.SGD, 0.1), ("adam", True, torch.optim.Adam, 0.003),
        ("adamw", False, torch.optim.AdamW, 0.003),
    ],
)  # fmt: skip
def test_the_optimiser_is_the_recipe_s_or_suits_the_network(
    optimiser: Literal["auto"], norm: bool, kind: type[torch.optim.Optimizer], lr: float
) -> None:
    made = make_optimiser(mlp(6, 3, norm=norm), Recipe(optimiser=optimiser))
    assert type(made) is kind and made.param_groups[0]["lr"] == lr
    assert make_optimiser(mlp(6, 3, norm=norm), Recipe(optimiser=optimiser, lr=0.5)).param_groups[0]["lr"] == 0.5
    if kind is torch.optim.SGD:
        assert made.param_groups[0]["nesterov"] and made.param_groups[0]["momentum"] == 0.9


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        make_optimiser(linear(6, 3).requires_grad_(False), Recipe())


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu", ""])
def test_a_device_that_does_not_exist_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="This machine has no device .*, but it has cpu"):
        find_device(device)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="This machine has no device 'cuda'"):
        find_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda:1") and find_device("auto").type == "cuda"
    with pytest.raises(InputError, match="This machine has no device 'cuda:2'; it has 2"):
        find_device("cuda:2")


@pytest.mark.parametrize(
    ("model", "data", "extra", "message"),
    [
        (linear(6, 2), blobs(60), None, "The data has 3 classes, but the model returns 2 logits"),
        (linear(6, 3), Data("d", array_split(*blobs(60)), None, tuple("abcd")), None, "4 classes, but the model"),
        (linear(6, 3), (blobs(60)[0], blobs(60)[1] - 1), None, "Labels range from -1 to 1"),
        (linear(6, 3), (blobs(60)[0] * torch.nan, blobs(60)[1]), None, "60 of 60 inputs hold NaN"),
        (linear(6, 3), blobs(60), (uniform(5, 4), torch.zeros(5).long()), r"shape \(4,\), but training examples"),
        (linear(6, 3), blobs(60), (uniform(5, 6), torch.full((5,), 7)), "Labels range from 7 to 7"),
        (linear(6, 3), blobs(60), (uniform(5, 6) + 2, torch.zeros(5).long()), "outside the bounds"),
        (Function(lambda x: x.sum(1, keepdim=True)), blobs(60), None, "logits"),
    ],
)
def test_bad_input_is_refused(model: nn.Module, data: Any, extra: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(Recipe(), data, extra, model)


@pytest.mark.parametrize(("n", "asked", "size"), [(60, None, 32), (12_000, None, 128), (60, 10, 10), (60, 500, 54)])
def test_batch_size(n: int, asked: int | None, size: int) -> None:
    examples = prepared(Recipe(batch_size=asked), blobs(n))
    assert examples.batches.batch_size == size
    lowered = [text for text in examples.warnings if "larger than the data" in text]
    assert lowered == (["The batch size 500 is larger than the data (54); it was lowered."] if asked == 500 else [])


@pytest.mark.parametrize(
    ("size", "ratio", "extra"), [(20, 0.5, 10), (20, 0.25, 5), (2, 0.9, 1), (1, 0.5, 0), (32, 0.99, 31)]
)
def test_every_batch_has_the_ratio_of_extra_data_and_at_least_one_example_of_its_own(
    size: int, ratio: float, extra: int
) -> None:
    examples = prepared(Recipe(batch_size=size, extra_ratio=ratio), extra=blobs(30, seed=5))
    assert examples.batches.extra_size == extra and len(examples.batches.at(0)) == size
    assert int((examples.batches.at(0) >= 60).sum()) == extra


def test_a_batch_that_processes_share_keeps_an_example_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fabric, "world_size", 2)
    batches = prepared(Recipe(batch_size=3, extra_ratio=0.5), extra=blobs(30, seed=5)).batches
    assert (batches.batch_size, batches.extra_size, len(batches)) == (2, 1, 54)
    monkeypatch.setattr(Fabric, "world_size", 40)
    with pytest.raises(InputError, match="A batch of 32 cannot be shared by 40 processes"):
        prepared(Recipe())


def test_classes_without_an_example_are_told() -> None:
    """Labels that count from 1 make one more class, of which there is nothing."""
    x, y = blobs(60)
    shifted = prepared(Recipe(), Data("off", array_split(x, y + 1), None, ("0", "1", "2", "3")), model=linear(6, 4))
    (text,) = [text for text in shifted.warnings if "classes have no" in text]
    assert text == "1 of 4 classes have no training example (0). If the labels count from 1, take 1 off."
    last = prepared(Recipe(), Data("few", array_split(x, y), None, ("0", "1", "2", "3")), model=linear(6, 4))
    assert "1 of 4 classes have no training example (3)." in last.warnings


def test_weights_that_are_not_finite_are_refused_before_the_first_step() -> None:
    model = linear(6, 3)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite: weight .1 of its values., before the first step"):
        prepared(Recipe(), model=model)


@pytest.mark.parametrize("extra", [None, blobs(30, seed=5)])
def test_holding_all_examples_out_is_refused(extra: Any) -> None:
    few = (uniform(3, 6), torch.arange(3))
    with pytest.raises(InputError, match=r"With validation 0\.9, all 3 examples are held out"):
        prepared(Recipe(validation=0.9), few, extra)


def test_the_same_share_of_every_class_is_held_out() -> None:
    examples = prepared(Recipe(validation=0.25))
    _, y = blobs(60)
    assert y[examples.held_out].bincount().tolist() == [5, 5, 5]
    both = torch.cat([examples.held_out, examples.batches.ids]).sort().values
    assert torch.equal(both, torch.arange(60))
    other = prepared(Recipe(validation=0.25, seed=7))
    assert torch.equal(examples.held_out, other.held_out)  # so that runs with other seeds are compared on the same


def test_without_held_out_examples_a_warning_says_what_best_rests_on() -> None:
    examples = prepared(Recipe(validation=0.0))
    assert len(examples.held_out) == 0 and torch.equal(examples.probed, torch.arange(60))
    assert any("best weights and alarm rest on training examples" in text for text in examples.warnings)
    assert prepared(Recipe()).warnings == []


@pytest.mark.parametrize(
    ("classes", "extra", "fits"),
    [
        (("cat", "dog"), ("cat", "dog"), True),
        (("cat", "dog", "emu"), ("cat", "dog"), True),
        (("cat", "dog", "emu"), ("cat", "emu"), False),
        (("cat", "dog"), ("dog", "cat"), False),
        (("cat", "dog"), ("0", "1"), True),  # numbers without names are taken at their word
        (("0", "1", "2"), ("0", "1"), True),
        (("0", "1"), ("0", "1", "2"), True),
        (("0", "1", "2"), ("1", "2"), False),  # a table without rows of class 0
        (("3", "7"), ("0", "1"), False),
    ],
)
def test_extra_labels_that_mean_other_classes_are_refused(
    classes: tuple[str, ...], extra: tuple[str, ...], fits: bool
) -> None:
    """A class that the extra table lacks shifted the numbers of those after it."""
    data = replace(as_data(blobs(60)), classes=classes)
    more = replace(as_data(blobs(30, seed=5)), classes=extra)
    recipe = Recipe(batch_size=20)
    if fits:
        assert prepared(recipe, data, more).batches.extra is more.train
    else:
        with pytest.raises(InputError, match="labels would have different meanings"):
            prepared(recipe, data, more)
