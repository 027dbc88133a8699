"""`build` and `describe` are inverse to each other, for everything that the catalogue lists."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.examples import make
from unperturbed.architectures.mlp import MLP
from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.targets import ByDistance
from unperturbed.catalogue import listing, short
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, follow
from unperturbed.losses import dlr
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.base import Method
from unperturbed.specs.spec import build, describe
from unperturbed.suites.by_name import ATTACKS, SUITES, custom
from unperturbed.threat import Threat

KINDS: dict[str, Any] = {"methods": Method, "maximise": Maximiser}
NAMED = [(folder, name) for folder in KINDS for name in listing(folder)]


def same(value: object, other: object) -> bool:
    """Objects with tensors have no equality: their descriptions do."""
    return type(value) is type(other) and describe(value) == describe(other)


@pytest.mark.parametrize(("folder", "name"), NAMED)
def test_a_name_of_the_catalogue_is_built_and_described(folder: str, name: str) -> None:
    entry: Any = follow(listing(folder)[name].path, "", OWN)
    made = make(entry)
    written = describe(made)
    assert written["class_path"] == name and type(made) is entry
    again = build(written, KINDS[folder])
    assert same(again, made) and repr(again) == repr(made)


@pytest.mark.parametrize("name", listing("architectures"))
def test_a_network_is_built_and_described(name: str) -> None:
    shape = (1, 8, 8)
    made: nn.Module = build({"class_path": name, "init_args": {"input_shape": shape, "classes": 3, "mean": (0.0,),
                                                               "std": (1.0,)}}, nn.Module)  # fmt: skip
    again = build(describe(made), nn.Module)
    assert same(again, made) and again.state_dict().keys() == made.state_dict().keys()
    with pytest.raises(InputError, match="has no specification"):
        describe(nn.Linear(2, 2))


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_goes_by_its_name_and_a_changed_one_by_its_parts(name: str) -> None:
    assert describe(SUITES[name]) == name and build(name, Suite) == SUITES[name]
    changed = replace(SUITES[name], attacks=SUITES[name].attacks[:1])
    assert build(describe(changed), Suite) == changed
    assert build("square,apgd-ce", Suite) == custom(["square", "apgd-ce"])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_described_with_its_loss_and_its_ascent(name: str) -> None:
    assert build(describe(ATTACKS[name]), Attack) == ATTACKS[name]  # type: ignore[type-abstract]


def test_the_order_of_targets_comes_back_with_its_settings_and_others_are_refused() -> None:
    attack = MultiTargeted(order=ByDistance(candidates=7))
    described = describe(attack)
    assert build(described, Attack) == attack  # type: ignore[type-abstract]
    described["init_args"]["order"]["init_args"] = {"candidate": 7}
    with pytest.raises(InputError, match="candidates"):
        build(described, Attack)  # type: ignore[type-abstract]
    described["init_args"]["order"] = "unperturbed.losses:margin_of_nothing"
    with pytest.raises(InputError):
        build(described, Attack)  # type: ignore[type-abstract]


@given(steps=st.integers(1, 9), size=st.floats(0.01, 2), restarts=st.integers(1, 5), draws=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_an_attack_of_any_settings_comes_back(steps: int, size: float, restarts: int, draws: int) -> None:
    attack = GradientAttack("PGD-DLR", dlr, PGD(steps=steps, step_size=size), restarts=restarts, draws=draws)
    assert build(describe(attack), Attack) == attack  # type: ignore[type-abstract]


numbers = st.floats(-3, 0), st.floats(0, 3)
bounds = st.none() | st.tuples(*numbers) | st.tuples(*(st.lists(side, min_size=4, max_size=4) for side in numbers))


@given(norm=st.sampled_from(["Linf", "L2", "L1"]), eps=st.floats(0, 5), box=bounds)
@settings(max_examples=50, deadline=None)
def test_a_threat_of_any_radius_and_box_comes_back(norm: Any, eps: float, box: Any) -> None:
    if box is not None and isinstance(box[0], list):
        box = tuple(torch.tensor(side) for side in box)
    threat = Threat(norm, eps, box)
    assert same(build(describe(threat), Threat), threat)


def test_a_threat_by_text_and_data_by_place() -> None:
    assert same(build("Linf:8/255", Threat), Threat("Linf", 8 / 255))
    data = build("digits", Data)
    assert describe(data) == "digits" and build(data, Data) is data
    with pytest.raises(InputError, match="without a place"):
        describe(replace(data, place=None))


def test_one_of_another_kind_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'trades'"):
        build("tradse", Method)  # type: ignore[type-abstract]
    with pytest.raises(InputError, match=r"Trades|trades"):
        build({"class_path": "trades", "init_args": {"bta": 1}}, Method)  # type: ignore[type-abstract]
    with pytest.raises(InputError, match="is no maximiser"):
        build("unperturbed.methods.at:AT", Maximiser)  # type: ignore[type-abstract]
    for kind in (Method, Suite, nn.Module, Data):
        with pytest.raises(InputError, match="stands in a file"):
            build("somebody:Thing", kind, Trust())
    with pytest.raises(InputError, match="describes no Threat"):
        build({"norm": "L2"}, Threat)


def test_short_names_are_those_of_the_catalogue() -> None:
    assert short(f"{MLP.__module__}.{MLP.__qualname__}") == "mlp" and short("a.b.C") == "a.b:C"
