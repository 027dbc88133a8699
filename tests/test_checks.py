"""Checks of arguments: every public call refuses nonsense by name, with its value."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unperturbed import AT, Recipe, Threat, evaluate, load_data, load_run, load_weights, minimum_norm, train
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.square import Square
from unperturbed.checks import check
from unperturbed.errors import InputError
from unperturbed.evaluation.certify import certify
from unperturbed.evaluation.probable import probable_accuracy
from unperturbed.evaluation.transfer import transfer
from unperturbed.losses import cross_entropy
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.awp import AWP
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.elle import ELLE_A
from unperturbed.methods.llr import LLR

pytestmark = pytest.mark.usefixtures("unchecked")  # the annotations' check under pytest would be first

NO_NUMBER = [True, "1", "", b"1", [1], (1,), {}, 1j, np.array([1.0]), torch.tensor(1.0), object(), math.nan, math.inf]
NO_WHOLE = [*NO_NUMBER, 1.5, 2.0, -1, 10**400, np.float64(3.0)]
NO_PLACE = ["", " ", "a\0b", 5, True, ["runs"]]
MODEL, X, Y = torch.nn.Linear(4, 2), torch.rand(6, 4), torch.arange(6) % 2
THREAT = Threat("Linf", 0.1)
SUITE = Suite("one", (GradientAttack("PGD", cross_entropy, PGD(steps=1)),), "a test")


def refused(name: str, value: Any, call: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=rf"^{name}\b.* (is|are) "):
        call()


def named(value: object) -> str:
    """Return a name that is the same in every process."""
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


@pytest.mark.parametrize("value", NO_WHOLE, ids=named)
def test_what_is_no_whole_number_is_refused_everywhere(value: Any) -> None:
    for name in ("epochs", "batch_size", "patience", "seed"):
        refused(name, value, lambda name=name: Recipe(**{name: value}))
    refused("steps", value, lambda: PGD(steps=value))
    refused("parts", value, lambda: LLR(parts=value))
    data: Any = (X, Y)
    for call in (evaluate, minimum_norm, probable_accuracy):
        refused("seed", value, lambda call=call: call(MODEL, data, THREAT, seed=value))
        refused("batch_size", value, lambda call=call: call(MODEL, data, THREAT, batch_size=value))
    refused("devices", value, lambda: train(MODEL, data, THREAT, devices=value))
    refused("draws", value, lambda: probable_accuracy(MODEL, data, THREAT, draws=value))
    for name in ("draws", "selection_draws", "seed", "batch_size"):
        refused(name, value, lambda name=name: certify(MODEL, data, THREAT, 0.1, **{name: value}))


@pytest.mark.parametrize("value", NO_NUMBER, ids=named)
def test_what_is_no_number_is_refused_everywhere(value: Any) -> None:
    for name in ("lr", "weight_decay", "averaging", "validation", "ramp", "checkpoint_minutes"):
        refused(name, value, lambda name=name: Recipe(**{name: value}))
    refused("step_size", value, lambda: PGD(step_size=value))
    refused("temperature", value, lambda: Langevin(temperature=value))
    refused("eps", value, lambda: Threat("Linf", value))
    refused("dual_max", value, lambda: Constrained(dual_max=value))
    refused("sensitivity", value, lambda: ELLE_A(sensitivity=value))
    refused("gamma", value, lambda: AWP(gamma=value))
    refused("sigma", value, lambda: certify(MODEL, (X, Y), THREAT, value))
    refused("alpha", value, lambda: certify(MODEL, (X, Y), THREAT, 0.1, alpha=value))


@pytest.mark.parametrize("value", [None, 7, "7", "fp16", ["32"], True, b"32"], ids=named)
def test_what_is_no_choice_is_refused(value: Any) -> None:
    for name in ("precision", "optimiser", "schedule", "augment", "alarm"):
        refused(name, value, lambda name=name: Recipe(**{name: value}))
    refused("form", value, lambda: LLR(form=value))
    refused("precision", value, lambda: evaluate(MODEL, (X, Y), THREAT, precision=value))


@pytest.mark.parametrize("value", [1, 0, "yes", None, "", [True]], ids=named)
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    refused("compile", value, lambda: Recipe(compile=value))
    refused("random_start", value, lambda: PGD(random_start=value))
    refused("overwrite", value, lambda: evaluate(MODEL, (X, Y), THREAT, overwrite=value))


@pytest.mark.parametrize("value", NO_PLACE, ids=named)
def test_what_is_no_path_is_refused(value: Any) -> None:
    refused("out", value, lambda: evaluate(MODEL, (X, Y), THREAT, out=value))
    refused("out", value, lambda: train(MODEL, (X, Y), THREAT, out=value))
    refused("folder", value, lambda: load_run(value))
    refused("path", value, lambda: load_weights(MODEL, value))


@pytest.mark.parametrize("value", [None, "at", 5, PGD, AT, torch.nn.Linear, {}], ids=named)
def test_what_is_not_of_the_class_that_is_wanted_is_refused(value: Any) -> None:
    data: Any = (X, Y)
    refused("model", value, lambda: evaluate(value, data, THREAT))
    refused("model", value, lambda: train(value, data, THREAT))
    refused("threat", value, lambda: evaluate(MODEL, data, value))
    refused("threat", value, lambda: transfer({"a": MODEL, "b": MODEL}, data, value))
    refused("maximiser", value, lambda: AT(maximiser=value))
    refused("method", value, lambda: AWP(method=value))
    refused("ascent", value, lambda: GradientAttack("PGD", cross_entropy, value))
    if value is not None:
        refused("method", value, lambda: train(MODEL, data, THREAT, value))
        refused("recipe", value, lambda: train(MODEL, data, THREAT, recipe=value))


@pytest.mark.parametrize("value", [None, 5, True, b"digits", ["digits"], {}], ids=named)
def test_what_is_no_text_is_refused(value: Any) -> None:
    refused("spec", value, lambda: load_data(value))
    refused("threat", value, lambda: Threat.parse(value))
    refused("label", value, lambda: GradientAttack(value, cross_entropy, PGD()))


@pytest.mark.parametrize(
    "attack",
    [
        lambda: FAB(steps=1.5),  # type: ignore[arg-type]
        lambda: FAB(targets=True),
        lambda: Square(queries="10"),  # type: ignore[arg-type]
        lambda: Square(share=math.nan),
        lambda: GradientAttack("PGD", cross_entropy, PGD(), restarts=2.0),  # type: ignore[arg-type]
        lambda: GradientAttack("PGD", cross_entropy, PGD(), enough=math.nan),
    ],
)
def test_an_attack_of_nonsense_is_refused(attack: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        attack()


@pytest.mark.parametrize("text", ["Linf:٠.١", "Linf:०", "L₂:1", "Linf:1e400", "Linf:nan", "Linf:1_0", "Linf:0x1", "~"])
def test_digits_of_other_scripts_and_words_are_no_radius(text: str) -> None:
    with pytest.raises(InputError):
        Threat.parse(text)


def test_numbers_of_numpy_and_lists_are_taken_as_those_of_python() -> None:
    recipe = Recipe(epochs=np.int64(3), lr=np.float32(0.5), milestones=[0.25, 1])  # type: ignore[arg-type]
    assert (recipe.epochs, recipe.lr, recipe.milestones) == (3, 0.5, (0.25, 1))
    assert type(recipe.epochs) is int and type(recipe.lr) is float
    assert check("rho", np.array([0.1, 0.2]), list[float]) == [0.1, 0.2]


def test_a_message_says_the_value_and_what_is_wanted() -> None:
    with pytest.raises(InputError, match=r"^epochs is 1\.5, but must be a whole number, and must be at least 1"):
        Recipe(epochs=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="precision is '7', but must be one of auto, 32, bf16, 64"):
        Recipe(precision="7")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"lr is 'fast', but must be a number, and must be positive.*, or None"):
        Recipe(lr="fast")  # type: ignore[arg-type]
