"""Two networks that can answer differently have different fingerprints; the same one has the same in any process."""

import functools
import importlib
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from support.toys import Function, linear, uniform
from unperturbed.evaluation.hashes import network_hash
from unperturbed.networks.fingerprint import describe

X = uniform(4, 6)


def fingerprint(network: nn.Module) -> str:
    return network_hash(network, X, 0)[0]


def structure(network: nn.Module) -> str:
    """Return the part of the fingerprint that does not run the network."""
    described = describe(network)
    assert not described.doubts
    return described.hash(described)


class Scaled(nn.Module):
    """A linear network times what any attribute says, however that is wrapped; the answers at x >= 0 never change."""

    levels = 3

    def __init__(self, extra: Any = None) -> None:
        super().__init__()
        self.inner, self.extra = linear(6, 3), extra

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


@dataclass
class Settings:
    table: Tensor
    factor: float = 1.0


class Plain:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net


def changed(number: float) -> Any:
    net = linear(6, 3)
    with torch.no_grad():
        net.bias.add_(number)
    return net


def adding(number: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x + number


def times(x: Tensor, factor: float = 1.0) -> Tensor:
    return x * factor


def cyclic(number: float) -> dict[str, Any]:
    value: dict[str, Any] = {"number": number}
    value["self"] = [value]
    return value


HOLDERS: dict[str, Callable[[float], Any]] = {
    "a number": lambda a: a,
    "a text": lambda a: f"mode {a}",
    "a tensor": lambda a: torch.tensor([a]),
    "a tensor in a list": lambda a: [torch.tensor([a])],
    "a tensor in a dictionary": lambda a: {"table": (torch.tensor([a]),)},
    "a tensor in a set": lambda a: {torch.tensor([a])},
    "a sparse tensor": lambda a: torch.tensor([[0.0, a + 2]]).to_sparse(),
    "an array": lambda a: np.array([a]),
    "an array of objects": lambda a: np.array([a, None], dtype=object),
    "a number of NumPy": lambda a: np.float32(a),
    "a network in a list": lambda a: [changed(a)],
    "a network in a plain object": lambda a: Plain(changed(a)),
    "a tensor in a dataclass": lambda a: Settings(torch.tensor([a])),
    "a number in a dataclass": lambda a: Settings(torch.zeros(1), a),
    "a closure": adding,
    "a partial": lambda a: functools.partial(times, factor=a),
    "a method of another object": lambda a: Settings(torch.tensor([a])).__eq__,
    "a namespace": lambda a: types.SimpleNamespace(a=a),
    "a range": lambda a: range(int(10 * a)),
    "a cycle": cyclic,
    "a deep nest": lambda a: functools.reduce(lambda inner, _: [inner], range(300), [a]),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_value_that_differs_anywhere_in_the_attributes_is_seen(name: str) -> None:
    make = HOLDERS[name]
    assert structure(Scaled(make(0.5))) == structure(Scaled(make(0.5)))
    assert structure(Scaled(make(0.5))) != structure(Scaled(make(0.25)))


def test_lambdas_are_told_apart_by_what_they_do() -> None:
    assert structure(Function(lambda x: x * 2)) == structure(Function(lambda x: x * 2))
    assert structure(Function(lambda x: x * 2)) != structure(Function(lambda x: x * 3))
    assert structure(Function(lambda x: x * 2)) != structure(Function(lambda x: x + 2))
    assert structure(Function(lambda x: x.exp())) != structure(Function(lambda x: x.log()))


def test_a_forward_patched_on_an_instance_is_seen() -> None:
    one, other = Scaled(), Scaled()
    inner = other.inner
    other.forward = lambda x: inner(x * 2)  # type: ignore[method-assign]
    assert structure(one) != structure(other)


def test_a_class_attribute_and_a_function_put_into_a_class_of_torch_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain = structure(Scaled()), structure(nn.Sequential(linear(6, 3), nn.ReLU()))
    monkeypatch.setattr(Scaled, "levels", 4)
    assert structure(Scaled()) != before
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)
    assert structure(nn.Sequential(linear(6, 3), nn.ReLU())) != plain


HOOKS = {
    "forward": lambda net, hook: net.register_forward_hook(lambda module, given, out: hook(out)),
    "before": lambda net, hook: net.register_forward_pre_hook(lambda module, given: (hook(given[0]),)),
    "inside": lambda net, hook: net.inner.register_forward_hook(lambda module, given, out: hook(out)),
    "backward": lambda net, hook: net.register_full_backward_hook(lambda module, given, out: (hook(given[0]),)),
}


@pytest.mark.parametrize("place", HOOKS)
def test_hooks_are_seen_and_the_numbers_of_their_handles_are_not(place: str) -> None:
    def hooked(factor: float) -> nn.Module:
        net = Scaled()
        net.handle = HOOKS[place](net, lambda value: value * factor)
        return net

    assert structure(hooked(2.0)) == structure(hooked(2.0))
    assert len({structure(net) for net in (Scaled(), hooked(2.0), hooked(3.0))}) == 3


def test_a_hook_for_all_modules_is_seen() -> None:
    before = structure(Scaled())
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, out: None)
    try:
        assert structure(Scaled()) != before
    finally:
        handle.remove()
    assert structure(Scaled()) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_parametrised_traced_and_symbolic_networks_are_told_apart() -> None:
    def scripted(number: float) -> nn.Module:
        traced: nn.Module = torch.jit.trace(changed(number), X)
        return traced

    for make in (
        lambda a: parametrizations.spectral_norm(changed(a)),
        scripted,
        lambda a: torch.fx.symbolic_trace(nn.Sequential(changed(a), nn.ReLU())),
    ):
        torch.manual_seed(0)
        one = make(0.0)
        torch.manual_seed(0)
        again = make(0.0)
        torch.manual_seed(0)
        other = make(0.5)
        assert structure(one) == structure(again) != structure(other)


@pytest.mark.slow  # imports the compiler
def test_compiled_networks_are_told_by_what_was_compiled() -> None:
    one, again, other = (structure(torch.compile(changed(a), backend="eager")) for a in (0.0, 0.0, 0.5))
    assert one == again != other


class Straight(torch.autograd.Function):
    """Rounds; the backward is the same in all that calls it so, and another one is another class."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(context: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope


class Dull(Straight):
    """The same with another gradient."""

    @staticmethod
    def backward(context: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return 0 * slope


def test_networks_with_the_same_answers_and_other_gradients_are_told_apart() -> None:
    inner = linear(6, 3)
    one, other = (Function(lambda x, step=step: inner(step.apply(x))) for step in (Straight, Dull))
    assert torch.equal(one(X), other(X)) and fingerprint(one) != fingerprint(other)
    assert structure(one) != structure(other)


def test_what_only_counts_does_not_make_a_network_another_one() -> None:
    class Counting(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            self.seen = [*getattr(self, "seen", []), float(x.detach().sum())]
            return super().forward(x)

    net = Counting()
    before = fingerprint(net)
    net(X)
    assert fingerprint(net) == before


def test_what_cannot_be_described_is_told() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    described = describe(Scaled(numbers()))
    assert len(described.doubts) == 1 and "network.extra" in described.doubts[0]
    assert not describe(Scaled([threading.Lock(), torch.Generator(), np.random.default_rng()])).doubts


HELPERS = """
import torch
TABLE = torch.tensor([{table}])
LEVELS = {{{levels}}}
def inner(x):
    return {inner}
def clip(x):
    return inner(x) * TABLE
class Base(torch.nn.Module):
    def forward(self, x):
        return {base}
class Step:
    def __init__(self, by):
        self.by = by + {by}
    def __call__(self, x):
        return x + self.by
"""
NETWORK = """
import os
import helpers
from helpers import Base, LEVELS, Step
class Net(Base):
    def __init__(self):
        super().__init__()
        torch = __import__("torch")
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(6, 3)
        self.names = {"b", "a", "c"}
    def forward(self, x):
        from helpers import clip
        if os.environ.get("LEVEL_OF_A_TEST") == "2":
            x = 2 * x
        return self.inner(Step(1)(clip(super().forward(x)))) + 0 * len(LEVELS) + 0 * helpers.TABLE.sum()
"""
AS_WRITTEN = {"table": "1.0", "levels": "'one', 'two', 'three'", "inner": "x.clamp(0, 1)", "base": "x", "by": "0"}
RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import network
from unperturbed.evaluation.hashes import network_hash
print(network_hash(network.Net(), torch.linspace(0, 1, 24).view(4, 6), 0))
"""


def in_a_new_process(folder: Path, written: dict[str, str], **environment: str) -> str:
    (folder / "helpers.py").write_text(HELPERS.format(**written))
    (folder / "network.py").write_text(NETWORK)
    words = [sys.executable, "-B", "-c", RUN, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | environment)
    assert done.stdout.endswith("())\n"), "nothing is in doubt"
    return done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_another_process_gives_the_same_fingerprint(tmp_path: Path) -> None:
    found = {in_a_new_process(tmp_path, AS_WRITTEN, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    found.add(in_a_new_process(tmp_path, AS_WRITTEN, OMP_NUM_THREADS="2"))
    assert len(found) == 1


def in_this_process(folder: Path, written: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "helpers.py").write_text(HELPERS.format(**written))
    (folder / "network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("helpers", "network"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    net = importlib.import_module("network").Net()
    return structure(net)


@pytest.mark.parametrize(
    ("what", "now"),
    [
        ("table", "2.0"),
        ("levels", "'one', 'two', 'four'"),
        ("inner", "x + (x.clamp(0, 1) - x).detach()"),
        ("base", "x.clone()"),
        ("by", "1"),
    ],
)
def test_an_edit_of_what_the_forward_reaches_is_seen(
    what: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_this_process(tmp_path, AS_WRITTEN, monkeypatch)
    assert in_this_process(tmp_path, AS_WRITTEN, monkeypatch) == before
    assert in_this_process(tmp_path, AS_WRITTEN | {what: now}, monkeypatch) != before


def test_an_environment_variable_that_the_forward_reads_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_this_process(tmp_path, AS_WRITTEN, monkeypatch)
    monkeypatch.setenv("LEVEL_OF_A_TEST", "2")
    assert in_this_process(tmp_path, AS_WRITTEN, monkeypatch) != before
