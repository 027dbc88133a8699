"""Calls of the Python API with arguments exchanged at random: nonsense is refused by name, and results are valid.

An outcome is an error of the package that names an argument, or a result that makes sense. Anything else, and a call
that takes longer than `LIMIT`, is a fault.
"""

import inspect
import math
import random
import re
import signal
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unperturbed as un
from support import mutants
from support.mutants import ANYTHING, CLASSES, FEATURES, NO_NUMBER, NO_PATH, NO_WHOLE, Make, N
from support.toys import linear
from unperturbed.attacks.base import Attack
from unperturbed.contents import contents
from unperturbed.examinations.runner import BUILT_IN
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Ascent, Maximiser
from unperturbed.methods.base import Method, Wrapper

pytestmark = pytest.mark.usefixtures("unchecked")  # the annotations' check under pytest would be first
LIMIT = 20.0
"""Seconds of the processor that a call may take."""


class Endless(BaseException):
    """A call took longer than `LIMIT`."""


@dataclass(frozen=True)
class Role:
    """What an argument may be: a valid value, nonsense, and what may be refused or work; `words`: its name in messages."""

    valid: Make
    nonsense: Sequence[Make]
    odd: Sequence[Make] = ()
    words: str = ""


@dataclass(frozen=True)
class Call:
    """A public function or class, the roles of its arguments, and what a result must be."""

    function: Callable[..., Any]
    roles: Mapping[str, Role]
    judge: Callable[[Any, dict[str, Any]], object] = field(default=lambda result, given: None)


def of(*values: Any) -> list[Make]:
    return [lambda value=value: value for value in values]  # type: ignore[misc]


def but(makes: Sequence[Make], *kinds: type) -> list[Make]:
    """Return what makes no value of these kinds."""
    return [make for make in makes if not isinstance(make(), kinds)]


def not_callable(makes: Sequence[Make]) -> list[Make]:
    return [make for make in makes if not callable(make())]


COUNTS = of(0, 1, 3, np.int64(2), np.uint8(2), 10**12, 2**63, 10**30)
NUMBERS = of(0, -1, 0.5, 1e-30, 1e30, -1e30, 5e-324, np.float32(0.5), np.int8(-3), 3)
MODEL = Role(lambda: linear(FEATURES, CLASSES), mutants.BAD_MODEL, mutants.ODD_MODEL, "model|network|weights|logits")
DATA = Role(
    lambda: (mutants.inputs(), mutants.labels()),
    [*mutants.bad_data(), *of(None)],
    list(mutants.odd_data()),
    "data|input|label|example|item|model|pair",
)
THREAT = Role(mutants.threat, mutants.BAD_THREAT, mutants.ODD_THREAT, "threat|bounds")
SUITE = Role(mutants.quick, mutants.BAD_SUITE, mutants.ODD_SUITE, "suite|attack")
SEED = Role(lambda: 0, NO_WHOLE, of(0, 5, 2**62, 2**63, 10**30))
SIZE = Role(lambda: "auto", but(NO_WHOLE, type(None)), COUNTS)
OUT = Role(lambda: None, NO_PATH, of("new", Path("new"), "file", "file/below", "full", "/proc/none", "x" * 300))
YES = Role(lambda: False, [*ANYTHING, *of(1, 0, None, "yes", "")], of(True, np.bool_(True)))
PART = Role(
    lambda: None, not_callable(but(ANYTHING, str)), of(0, -1, 1, "logits", "none", lambda o: o, lambda o: None, True)
)
PROGRESS = Role(lambda: print, [*not_callable(ANYTHING), *of(None, 1, "print")])
PROGRESS = replace(PROGRESS, valid=lambda: lambda *words: None)


def methods_of() -> Role:
    nonsense = [*ANYTHING, *of("at", 5, un.AT, un.AT().maximiser, nn.Linear(2, 2))]
    return Role(lambda: un.AT(un.maximise.PGD(steps=1)), nonsense)


def role_of(name: str, kind: Any, valid: Make) -> Role | None:
    """Return the role that an annotation means, None for one that is not known here."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    first, optional = kinds[0], type(None) in kinds
    more = [] if optional else of(None)
    if name in ("few_classes", "note", "name", "label"):
        return Role(valid, [*but(ANYTHING, str), *of(3, True), *more], of("", "a\nb", "x" * 1000))
    if first is int:
        return Role(valid, [*NO_WHOLE, *more], [*COUNTS, *of(-3)])
    if first is float:
        return Role(valid, [*NO_NUMBER, *more], NUMBERS) if name != "enough" else None
    if first is bool:
        return Role(valid, YES.nonsense, YES.odd)
    if get_origin(first) is Literal:
        return Role(valid, [*ANYTHING, *of("", "nothing", 3, b"sgd", *more)], of(*get_args(first)))
    if get_origin(first) is tuple and get_args(first)[0] in (int, float):
        whole = get_args(first)[0] is int
        nonsense = [*but(ANYTHING, list), *of(None, 3, "0.5", [math.nan], ["a"], [True], [None], [[1]])]
        return Role(valid, nonsense, of([], [1], (1,), [0], [-1], [0.5, 0.5] if not whole else [1, 1], [1e30], range(2)))
    if inspect.isclass(first) and issubclass(first, Maximiser):
        nonsense = [*not_callable(ANYTHING), *of(None, "pgd", un.maximise.PGD, un.AT())]
        return Role(valid, nonsense, of(lambda score, x, threat, noise, start=None: x))
    if inspect.isclass(first) and issubclass(first, Method):
        return methods_of()
    return None


def classes_of(package: str, base: type) -> Iterator[type]:
    """Yield the public classes of a package's table of contents that can be made."""
    module = getattr(un, package)
    for name in contents(module.__name__):
        kind = getattr(module, name)
        if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind):
            yield kind


CHEAP = {"steps": 2, "queries": 10, "restarts": 1, "samples": 2, "targets": 1, "count": 1, "parts": 1}
"""Settings that make a call quick."""


def settings(kind: type, **fixed: Any) -> dict[str, Role]:
    """Return the roles of a class's settings, each at its default or cheaper."""
    hints = get_type_hints(kind if hasattr(kind, "__dataclass_fields__") else kind.__init__)  # type: ignore[misc]
    roles = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        default = fixed.get(name, CHEAP.get(name, parameter.default))
        factory = repr(default) == "<factory>"
        role = role_of(name, hints.get(name), (lambda value=default: value))
        if role is not None and not factory:
            roles[name] = role
        elif role is not None:
            roles[name] = replace(role, valid=un.AT if name == "objective" else lambda: un.maximise.PGD(steps=2))
    return roles


def trains(method: Any, given: dict[str, Any]) -> None:
    """A method that can be made gives a finite loss and finite gradients, or refuses the network."""
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.SiLU(), nn.Linear(8, CLASSES))
    loss = un.robust_loss(method, model, mutants.inputs(), mutants.labels(), mutants.threat(), step=0)
    assert loss.shape == () and bool(loss.isfinite()), loss
    loss.backward()


def attacks(attack: Any, given: dict[str, Any]) -> None:
    suite = un.Suite("one", (attack,), "a test")
    lies_inside(un.attack(linear(FEATURES, CLASSES), *DATA.valid(), mutants.threat(), suite), {})


def lies_inside(z: Tensor, given: dict[str, Any]) -> None:
    threat = given.get("threat", mutants.threat())
    x = given.get("x", mutants.inputs())
    x = torch.as_tensor(np.array(x) if not isinstance(x, Tensor) else x).detach().float()
    assert z.shape == x.shape and bool(z.isfinite().all())
    assert bool(threat.contains(threat.boxed(x.to(z)), z).all())


def is_share(interval: Any, n: int) -> None:
    assert interval.n == n and 0 <= interval.low <= interval.high <= 1
    assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9


def is_outcome(outcome: Any, given: dict[str, Any]) -> None:
    assert outcome.n == N == sum(outcome.counts.values())
    is_share(outcome.clean_accuracy, N)
    is_share(outcome.robust_accuracy, N)
    assert outcome.robust_accuracy.value <= outcome.clean_accuracy.value
    survived = [margin for margin, verdict in zip(outcome.examples["clean_margin"], outcome.examples["verdict"], strict=True) if verdict == "survived"]
    assert all(margin < 0 for margin in survived) and len(survived) == outcome.counts["survived"]


def are_outcomes(outcomes: Any, given: dict[str, Any]) -> None:
    for outcome in outcomes:
        is_outcome(outcome, given)
    assert len(outcomes) == len(given["threats"])


def are_distances(distances: Any, given: dict[str, Any]) -> None:
    assert distances.n == N == sum(distances.counts.values())
    is_share(distances.clean_accuracy, N)
    shares = [distances.at(eps) for eps in distances.radii]
    for share in shares:
        is_share(share, N)
    assert [share.value for share in shares] == sorted((share.value for share in shares), reverse=True)


def is_probable(probable: Any, given: dict[str, Any]) -> None:
    assert probable.n == N
    for interval in (probable.clean_accuracy, *probable.accuracy.values()):
        is_share(interval, N)


def is_transfer(transfer: Any, given: dict[str, Any]) -> None:
    assert transfer.n == N and len(transfer.names) == len(given["models"])
    for interval in (*transfer.clean, *transfer.worst, *(each for row in transfer.accuracy for each in row)):
        is_share(interval, N)


def is_diagnosis(diagnosis: Any, given: dict[str, Any]) -> None:
    for finding in diagnosis.examined.findings:
        assert all(math.isfinite(number.value) for number in finding.numbers), finding
    assert not any("Traceback" in text for text in diagnosis.failed.values())


def is_trained(trained: Any, given: dict[str, Any]) -> None:
    is_share(trained.clean_accuracy, trained.clean_accuracy.n)
    is_share(trained.robust_accuracy, trained.robust_accuracy.n)
    assert all(bool(weight.isfinite().all()) for weight in trained.model.parameters())


def is_loss(loss: Any, given: dict[str, Any]) -> None:
    assert loss.shape == () and bool(loss.isfinite())


def is_network(model: Any, given: dict[str, Any]) -> None:
    shape = given.get("input_shape", (FEATURES,))
    classes = int(given.get("classes", CLASSES))
    with torch.no_grad():
        assert model.eval()(torch.rand(2, *map(int, shape))).shape == (2, classes)


def is_threat(threat: Any, given: dict[str, Any]) -> None:
    assert isinstance(threat.eps, float) and 0 <= threat.eps < math.inf
    assert un.Threat.parse(str(threat).split(" w")[0]).norm == threat.norm


def image_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), linear(16, CLASSES))


def evaluated_images() -> Any:
    return un.evaluate(image_network(), (mutants.images(), mutants.labels()), mutants.threat(), mutants.quick())


def evaluated() -> Any:
    return un.evaluate(linear(FEATURES, CLASSES), (mutants.inputs(), mutants.labels()), mutants.threat(), mutants.quick())


def measured(**more: Role) -> dict[str, Role]:
    return {"model": MODEL, "data": DATA, "threat": THREAT, "seed": SEED, "batch_size": SIZE, "output": PART, "progress": PROGRESS, **more}


def measurements() -> list[Call]:
    numbers = Role(lambda: (0.1,), [*but(NO_NUMBER, list, tuple), *of([math.nan], ["a"], [None])], of([], 0, 1, [0, 0], [2], [-1], [0.5, 0.1], np.array([0.1]), (1, 2), [1]))
    one = Role(lambda: {"a": linear(FEATURES, CLASSES), "b": linear(FEATURES, CLASSES, 1)}, [*ANYTHING, *of(None), *(lambda make=make: {"a": make(), "b": linear(FEATURES, CLASSES)} for make in mutants.BAD_MODEL)], [lambda: {"a": linear(FEATURES, CLASSES)}, lambda: {"": linear(FEATURES, CLASSES), 3: linear(FEATURES, CLASSES)}, lambda: {"a/b": linear(FEATURES, CLASSES), "..": linear(FEATURES, CLASSES)}, *(lambda make=make: {"a": make(), "b": linear(FEATURES, CLASSES)} for make in mutants.ODD_MODEL)], "model|network|weights|logits|name")
    several = Role(lambda: [mutants.threat()], [*ANYTHING, *of(None, "Linf:0.1", mutants.threat(), [0.1], ["Linf:0.1"]), *(lambda make=make: [mutants.threat(), make()] for make in mutants.BAD_THREAT)], [lambda: [mutants.threat()] * 2, lambda: [mutants.threat(), un.Threat("L2", 0.1)], lambda: [un.Threat("Linf", 0.1), un.Threat("Linf", 0.05)], lambda: (un.Threat("Linf", 0.1), un.Threat("Linf", 0.1, None))], "threat|bounds")
    diagnostics = Role(lambda: (random.choice(BUILT_IN),), [*but(ANYTHING, list), *of(None, "margins", BUILT_IN[0], ["margins"], [None], [3])], [*of([]), *([lambda d=d: [d] for d in BUILT_IN]), *of([lambda s: None], [lambda: None], [int])])
    examples = Role(lambda: 10, [*but(NO_WHOLE, str), *of("", "ten", "first:", "first:-1", "random:1.5", "first:ten", "2:3")], of(None, 0, 1, 3, 10**12, "first:3", "random:4", "stratified:5", "random:1000"))
    precision = Role(lambda: "auto", [*ANYTHING, *of(None, 32, "64", "fp16")], of("32"))
    return [
        Call(un.evaluate, measured(suite=SUITE, out=OUT, overwrite=YES, precision=precision), is_outcome),
        Call(un.evaluate_threats, {**{k: r for k, r in measured(suite=replace(SUITE, odd=()), overwrite=YES, precision=precision).items() if k != "threat"}, "threats": several}, are_outcomes),
        Call(un.minimum_norm, measured(radii=replace(numbers, valid=lambda: None, words="radius"), out=OUT, overwrite=YES), are_distances),
        Call(un.probable_accuracy, measured(rho=replace(numbers, valid=lambda: 0.5), draws=Role(lambda: 5, NO_WHOLE, COUNTS)), is_probable),
        Call(un.transfer, {**{k: r for k, r in measured(suite=replace(SUITE, odd=()), out=OUT).items() if k != "model"}, "models": one}, is_transfer),
        Call(un.diagnose, {**{k: r for k, r in measured(out=OUT).items() if k != "data"}, "test": DATA, "train": replace(DATA, valid=lambda: None, nonsense=list(mutants.bad_data())), "diagnostics": diagnostics, "name": Role(lambda: "n", [*but(ANYTHING, str), *of(None, 3)], of("", "x" * 300, "a/b")), "strength": Role(lambda: 0.1, NO_NUMBER, NUMBERS), "examples": examples, "trained_seed": SEED}, is_diagnosis),
        Call(un.attack, {"model": MODEL, "x": Role(mutants.inputs, mutants.BAD_INPUTS, mutants.ODD_INPUTS, DATA.words), "y": Role(mutants.labels, mutants.BAD_LABELS, mutants.ODD_LABELS, DATA.words), "threat": THREAT, "suite": SUITE, "seed": SEED, "batch_size": SIZE, "output": PART}, lies_inside),
        Call(un.quantize, {"model": replace(MODEL, valid=image_network, odd=()), "data": replace(DATA, valid=lambda: (mutants.images(), mutants.labels())), "threat": THREAT, "outcome": Role(evaluated_images, [*ANYTHING, *of(None, "pgd", un.Outcome)]), "out": OUT, "output": PART}),
    ]


def training() -> list[Call]:
    extra = replace(DATA, valid=lambda: None, nonsense=list(mutants.bad_data()))
    recipe = Role(lambda: un.Recipe(epochs=1, batch_size=4, validation=0.3), [*ANYTHING, *of("fast", 3, un.Recipe, {"epochs": 1})], [lambda: un.Recipe(epochs=1, lr=1e30), lambda: un.Recipe(epochs=1, augment="crop"), lambda: un.Recipe(epochs=1, precision="bf16"), lambda: un.Recipe(epochs=1, precision="64"), lambda: un.Recipe(epochs=1, validation=0.99), lambda: un.Recipe(epochs=1, batch_size=1), lambda: un.Recipe(epochs=1, averaging=0.9, label_smoothing=0.5, patience=1)], "recipe|validation|augment|crop|precision")
    text = Role(lambda: "cpu", [*ANYTHING, *of(None, 3, "", "gpu", "cuda:99", "meta", "CPU", "cpu:7")], of("auto"))
    loggers = Role(lambda: (), [*but(ANYTHING, list), *of(None, "csv", ["wandb"], [None], [3])], of([]))
    config = Role(lambda: None, but(ANYTHING, dict), [lambda: {"a": object()}, lambda: {3: 4}, lambda: {"method": "x"}])
    weights = Role(lambda: None, NO_PATH, of("none.pt", ".", "file", "weights"), "weights|file|folder")
    tensor_x = Role(mutants.inputs, mutants.BAD_INPUTS, [make for make in mutants.ODD_INPUTS if isinstance(make(), Tensor)], DATA.words + "|x")
    tensor_y = Role(mutants.labels, mutants.BAD_LABELS, [make for make in mutants.ODD_LABELS if isinstance(make(), Tensor)], DATA.words + "|y")
    ids = Role(lambda: None, ANYTHING, [lambda: torch.arange(N), lambda: torch.arange(3), lambda: torch.rand(N), lambda: torch.full((N,), -1), lambda: torch.arange(N)[:, None]])
    method = replace(methods_of(), odd=[lambda kind=kind: kind() for kind in classes_of("methods", Method)])
    some = replace(method, odd=[])
    return [
        Call(un.train, {"model": MODEL, "data": DATA, "threat": THREAT, "method": method, "recipe": recipe, "out": OUT, "resume": YES, "device": text, "devices": Role(lambda: 1, NO_WHOLE, of(0, 10**12, np.int64(1))), "extra": extra, "weights": weights, "output": PART, "loggers": loggers, "config": config, "progress": PROGRESS}, is_trained),
        Call(un.robust_loss, {"method": replace(method, nonsense=[*method.nonsense, *of(None)]), "model": MODEL, "x": tensor_x, "y": tensor_y, "threat": THREAT, "step": Role(lambda: 0, NO_WHOLE, of(0, 5, 2**62, 10**30)), "ids": ids, "seed": SEED, "output": PART}, is_loss),
        Call(un.robust_loss, {"method": some, "model": MODEL, "x": tensor_x, "y": tensor_y, "threat": THREAT, "step": SEED}, is_loss),
    ]


def makers() -> list[Call]:
    """Return every class of settings that the tables of contents hold."""
    calls = [Call(kind, settings(kind), trains) for kind in classes_of("methods", Method)]
    calls += [Call(kind, settings(kind), lambda made, given: trains(un.AT(made), given)) for kind in classes_of("maximise", Maximiser)]
    for kind in classes_of("attacks", Attack):
        calls.append(Call(kind, settings(kind, label="one"), attacks)) if kind not in (un.attacks.GradientAttack, un.attacks.FunctionAttack, un.attacks.MultiTargeted) else None
    ascent = Role(lambda: un.maximise.PGD(steps=2), [*ANYTHING, *of(None, "pgd", un.maximise.PGD, un.maximise.FrankWolfe)])
    loss = Role(lambda: cross_entropy, [*not_callable(ANYTHING), *of(None, "cross_entropy")])
    calls.append(Call(un.attacks.GradientAttack, {**settings(un.attacks.GradientAttack, label="one"), "loss": loss, "ascent": ascent}, attacks))
    calls.append(Call(un.attacks.FunctionAttack, {**settings(un.attacks.FunctionAttack, label="one"), "function": replace(loss, valid=lambda: lambda m, x, y: x, odd=mutants.ODD_SUITE)}, attacks))
    calls += [Call(kind, settings(kind, input_shape=(3, 8, 8), classes=3, width=2), is_network) for kind in classes_of("architectures", nn.Module) if kind is not un.architectures.Normalise]
    calls.append(Call(un.Recipe, settings(un.Recipe)))
    return calls


def files() -> list[Call]:
    path = Role(lambda: "run", [*NO_PATH, *of(None)], of("none", ".", "file", "/proc/self/mem", "/dev/null", "x" * 300, Path("run/checkpoints")), "folder|path|run|file|config|weights|none")
    spec = Role(lambda: "digits", [*but(ANYTHING, str), *of(None, "", " ", "~", "digit", "digits?a=1", "file", "none.npz", "os:system", "os:getcwd", "builtins:dict", "/", "..", "a:b:c", "?label=x", "\0", "x" * 5000, "%", "//", "file?label=")], [], "data|spec|file|folder|name|import|choice|function|no value|npz")
    trust = Role(lambda: False, YES.nonsense, of(True))
    shape = Role(lambda: (FEATURES,), [*but(ANYTHING, list), *of(None, 6, "6", [6.5], [-1], [True])], of((), (1, 4, 4), (0,), (10**12,), [FEATURES]))
    name = Role(lambda: "mlp", [*but(ANYTHING, str), *of(None, "", "mpl", "os:system", "torch.nn:Linear", "builtins:dict", "a.b.c:d", "~")], [], "model|spec|import|name|module|argument")
    several = Role(lambda: (0.0,), [*but(ANYTHING, list), *of(None, 0.5, "0", [math.nan], [None], ["a"])], of((), (0.5,) * FEATURES, (0.5, 0.5), [0.0], (1e30,)))
    eps = Role(lambda: 0.1, [*NO_NUMBER, *of(None, -0.1, "8/255")], of(0, 1, 1e30, np.float32(0.1), 5e-324), "eps")
    norm = Role(lambda: "Linf", [*ANYTHING, *of(None, "", "linf", "L3", 2, math.inf, b"L2")], of("L1", "L2"), "norm")
    bounds = Role(lambda: (0.0, 1.0), [*but(ANYTHING, dict), *of(3, "0,1", (0,), (0, 1, 2), (1, 0), (math.nan, 1), (0, "1"), (0, None), (True, 1j), [[]], (torch.ones(2), torch.zeros(2)), (torch.zeros(2), torch.ones(3)), ({}, 1))], of(None, (0, 0), [0, 1], np.array([0, 1]), torch.tensor([0.0, 1.0]), (-math.inf, math.inf), (torch.zeros(2), 1), (np.zeros(2), np.ones(2))), "bounds")
    text = Role(lambda: "Linf:0.1", [*ANYTHING, *of(None, "", "Linf", ":", "Linf:", "Linf:-1", "Linf:1/0", "L3:1", "Linf:0.1:2", "Linf:0.1;", "Linf:nan", "Linf:1e999", "0.1", "x" * 10000)], of("l2:0.5", "1:12", " Linf : 8/255 ", "2:1e-3"), "threat")
    outcomes = Role(lambda: [evaluated()], [*but(ANYTHING, list), *of(None, [None], ["a"])], [lambda: [evaluated(), evaluated()], lambda: evaluated(), list])
    named = Role(lambda: {"a": evaluated(), "b": evaluated()}, [*ANYTHING, *of(None, {"a": None, "b": None}, {"a": "x"}, [1, 2])], [lambda: {"a": evaluated()}, lambda: {"a": [evaluated()], "b": [evaluated()]}, lambda: {"a": [], "b": []}, lambda: {1: evaluated(), "b": evaluated()}, lambda: [evaluated(), evaluated()]])
    suite = {**settings(un.Suite, name="one", note="a"), "attacks": Role(lambda: mutants.quick().attacks, [*ANYTHING, *of(None, "pgd", ["pgd"], [un.maximise.PGD()])]), "l1": Role(lambda: (), [*but(ANYTHING, list), *of(None, "pgd", ["pgd"])])}
    return [
        Call(un.load_run, {"folder": path, "trust": trust}),
        Call(un.load_weights, {"model": replace(MODEL, nonsense=mutants.NO_MODULE), "path": replace(path, valid=lambda: "weights"), "strict": YES, "keep_normalisation": YES}),
        Call(un.save_weights, {"model": replace(MODEL, nonsense=mutants.NO_MODULE), "path": replace(path, valid=lambda: "saved"), "about": Role(lambda: None, but(ANYTHING, dict), [lambda: {"a": object()}, lambda: {3: 4}])}),
        Call(un.load_data, {"spec": spec}),
        Call(un.build_model, {"spec": name, "arguments": Role(dict, [*but(ANYTHING, dict), *of(None, {"hiden": 3}, {"hidden": "many"}, {3: 4}, {"activation": "none"})], of({"hidden": [4]}, {"hidden": []}, {"hidden": [0]}, {"hidden": [10**12]})), "input_shape": shape, "classes": Role(lambda: CLASSES, NO_WHOLE, COUNTS), "mean": several, "std": replace(several, valid=lambda: (1.0,))}, is_network),
        Call(un.Threat, {"norm": norm, "eps": eps, "bounds": bounds}, is_threat),
        Call(un.Threat.parse, {"text": text, "bounds": bounds}, is_threat),
        Call(un.union, {"outcomes": outcomes}),
        Call(un.compare, {"networks": named}),
        Call(un.Suite, suite),
    ]


@contextmanager
def limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def described(make: Make, value: Any) -> str:
    """Return a value's type and text, and the line that it was made at."""
    try:
        text = f"{value!r:.100}"
    except Exception:
        text = ""
    return f"{type(value).__name__} {text} (line {inner(make).__code__.co_firstlineno})"


def inner(make: Make) -> Any:
    """Return the function that a function calls."""
    if not inspect.isfunction(make):
        return described
    return next((each for each in (make.__defaults__ or ()) if inspect.isfunction(each)), make)  # type: ignore[attr-defined]


def exchanged(role: Role, draw: random.Random) -> tuple[Make, bool]:
    """Return what makes an argument, and whether that is nonsense."""
    nonsense = not role.odd or draw.random() < 0.4
    return draw.choice(role.nonsense if nonsense else role.odd), nonsense


def fault_of(call: Call, draw: random.Random) -> str | None:
    """Make a call with one or two arguments exchanged, and return what is wrong with its outcome, None if nothing is."""
    names = draw.sample(sorted(call.roles), min(len(call.roles), draw.choice([1, 1, 1, 2])))
    made = {name: exchanged(call.roles[name], draw) for name in names}
    given = {name: role.valid() for name, role in call.roles.items()}
    try:
        given |= {name: make() for name, (make, _) in made.items()}
    except un.InputError:
        return None
    said = f"{call.function.__qualname__}({', '.join(f'{name}={described(made[name][0], given[name])}' for name in names)})"
    nonsense = [name for name in names if made[name][1]]
    try:
        with limited():
            result = call.function(**given)
            if not nonsense:
                call.judge(result, given)
    except un.RunError:
        return None
    except un.InputError as error:
        text = str(error)
        words = "|".join(f"{name}|{call.roles[name].words or name}" for name in names)
        return None if re.search(words, text, re.IGNORECASE) else f"{said}: the message names no argument: {text}"
    except Endless:
        return f"{said} took more than {LIMIT} s"
    except BaseException as error:
        return f"{said} ended in {type(error).__name__}: {str(error)[:300]}"
    return f"{said} took nonsense for {nonsense}" if nonsense else None


@cache
def calls() -> list[Call]:
    return [*measurements() * 4, *training() * 4, *makers(), *files()]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a run, weights, and a folder that is not empty."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "file").write_text("text")
    (folder / "full").mkdir()
    (folder / "full/other").write_text("text")
    model = un.architectures.MLP((FEATURES,), CLASSES, hidden=(4,))
    un.train(model, (mutants.inputs(), mutants.labels()), mutants.threat(), recipe=un.Recipe(epochs=1), out=folder / "run")
    un.save_weights(linear(FEATURES, CLASSES), folder / "weights")
    return folder


def faults(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    found = [fault_of(draw.choice(calls()), draw) for _ in range(count)]
    return [fault for fault in found if fault is not None]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_calls_are_refused_by_name_or_give_valid_results(
    seed: int, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)
    assert not (found := faults(seed, 100)), "\n".join(found)
