"""Objects that hide their contents: what they hold is described all the same."""

import enum
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.toys import Function, linear
from unperturbed.networks.fingerprint import describe


def structure(value: object) -> str:
    described = describe(value)
    assert not described.doubts
    return described.hash(described)


class Silent(list[Any]):
    """A list that shows nothing of what it holds."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Mute(dict[str, Any]):
    """A dictionary that shows nothing of what it holds."""

    def items(self) -> Any:
        return {}.items()


class Named:
    """An object that is copied by its name alone."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __reduce_ex__(self, protocol: Any) -> str:
        return "NAMED"


class Mode(enum.Enum):
    ROUGH = 1


def cached(number: float) -> Callable[[int], float]:
    @functools.lru_cache
    def looked_up(_: int) -> float:
        return number

    return looked_up


def holding(name: str) -> Callable[[float], nn.Module]:
    def make(number: float) -> nn.Module:
        network = nn.Identity()
        setattr(network, name, {1: number})
        return network

    return make


def keyed(number: float) -> nn.Module:
    network = nn.Identity()
    network.table_hooks = {number: 1}  # type: ignore[assignment]
    return network


def posing_as_compiled(number: float) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        return x * number

    function._torchdynamo_orig_callable = torch.relu  # type: ignore[attr-defined]
    return function


HIDING: dict[str, Callable[[float], Any]] = {
    "a list that tells nothing": lambda a: Silent([a]),
    "a dictionary that tells nothing": lambda a: Mute(a=a),
    "an object that is copied by name": Named,
    "a function with a cache": cached,
    "an attribute named like hooks": keyed,
    "an attribute named like a state": holding("state_dict_scale"),
    "an attribute named like a compiled network": holding("_orig_mod"),
    "a function that poses as compiled": posing_as_compiled,
}


@pytest.mark.parametrize("name", HIDING)
def test_what_an_object_hides_is_seen(name: str) -> None:
    make = HIDING[name]
    assert structure(make(0.5)) == structure(make(0.5))
    assert structure(make(0.5)) != structure(make(0.25))


def test_a_class_attribute_of_an_enumeration_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structure(Mode.ROUGH)
    monkeypatch.setattr(Mode, "factor", 2.0, raising=False)
    assert structure(Mode.ROUGH) != before


def test_which_hook_takes_keywords_is_seen() -> None:
    def hooked(first: bool) -> nn.Module:
        network = linear(6, 3)
        for with_kwargs in (first, not first):
            network.register_forward_pre_hook(lambda *given: None, with_kwargs=with_kwargs)
        return network

    assert structure(hooked(True)) == structure(hooked(True)) != structure(hooked(False))


PATCHES = [(torch, "relu"), (nn.functional, "relu"), (Tensor, "clamp")]


@pytest.mark.parametrize(("place", "name"), PATCHES, ids=["torch", "functional", "Tensor"])
def test_a_function_of_the_users_in_a_place_of_torch_is_seen(
    place: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(linear(6, 3), nn.ReLU())
    before = structure(network)
    monkeypatch.setattr(place, name, lambda x, *rest, **others: x)
    assert structure(network) != before


def test_the_default_type_of_numbers_is_seen() -> None:
    network = Function(lambda x: x * torch.tensor(1.0))
    before = structure(network)
    torch.set_default_dtype(torch.float64)
    try:
        assert structure(network) != before
    finally:
        torch.set_default_dtype(torch.float32)
    assert structure(network) == before
