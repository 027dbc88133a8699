"""Code that uses objects without naming them: found if a text names them, otherwise reported as unseen."""

import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from unperturbed.networks.fingerprint import describe

LEVEL = "LEVEL_OF_A_TEST"
find = os.getenv


def from_a_global() -> str | None:
    return os.environ.get(LEVEL)


def by_another_name() -> str | None:
    return find(LEVEL)


def from_a_closure(name: str) -> Callable[[], str | None]:
    return lambda: os.environ.get(name)


def from_a_default(name: str = "LEVEL_" + "OF_A_TEST") -> str | None:
    return os.getenv(name)


@pytest.mark.parametrize("function", [from_a_global, by_another_name, from_a_closure(LEVEL), from_a_default])
def test_an_environment_variable_named_elsewhere_is_seen(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEVEL, "1")
    one, again = describe(function), describe(function)
    monkeypatch.setenv(LEVEL, "2")
    other = describe(function)
    assert not one.doubts and one.hash(one) == again.hash(again) != other.hash(other)


@pytest.mark.parametrize(
    "function",
    [
        lambda: globals()["LEV" + "EL"],
        lambda text: eval(text),
        lambda text: exec(text),
        lambda text: __import__(text),
        lambda text: sys.modules[text].LEVEL,
        lambda text: importlib.import_module(text).LEVEL,
    ],
)
def test_code_that_looks_things_up_by_a_text_is_told_as_unseen(function: Callable[..., Any]) -> None:
    (doubt,) = describe(function).doubts
    assert doubt.startswith("network.") and doubt.endswith(")")


def test_an_attribute_of_a_module_taken_by_a_text_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = types.ModuleType("settings_of_a_test")
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    scope: dict[str, Any] = {"settings": settings}
    exec("def read(name):\n    return getattr(settings, name)", scope)

    def described(level: float) -> str:
        settings.level = level  # type: ignore[attr-defined]
        found = describe(scope["read"])
        assert not found.doubts
        return found.hash(found)

    assert described(0.5) == described(0.5) != described(0.25)


def test_a_method_named_like_such_a_function_is_no_doubt() -> None:
    assert not describe(lambda network: network.eval() and list(network.modules())).doubts
