"""Every class of settings, and every call on files and results, of the Python API."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import unperturbed as un
from support.fuzzing import networks, threats
from support.fuzzing.calls import evaluated
from support.fuzzing.data import CLASSES, FEATURES
from support.fuzzing.judges import attacks, is_network, is_threat, trains
from support.fuzzing.roles import MODEL, YES, Call, Role, classes_of, settings
from support.fuzzing.values import ANYTHING, COUNTS, NO_NUMBER, NO_PATH, NO_WHOLE, but, not_callable, of
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fast_minimum_norm import FastMinimumNorm
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.methods.base import Method


def makers() -> list[Call]:
    """Return every class of settings that the tables of contents hold."""
    calls = [Call(kind, settings(kind), trains) for kind in classes_of("methods", Method)]
    calls += [
        Call(kind, settings(kind), lambda made, given: trains(un.AT(made), given))
        for kind in classes_of("maximise", Maximiser)
    ]
    for kind in classes_of("attacks", Attack):
        calls.append(Call(kind, settings(kind, label="one"), attacks)) if kind not in (
            un.attacks.GradientAttack,
            un.attacks.FunctionAttack,
            un.attacks.MultiTargeted,
            un.attacks.Descent,
        ) else None
    ascent = Role(
        lambda: un.maximise.PGD(steps=2), [*ANYTHING, *of(None, "pgd", un.maximise.PGD, un.maximise.FrankWolfe)]
    )
    loss = Role(lambda: cross_entropy, [*not_callable(ANYTHING), *of(None, "cross_entropy")])
    calls.append(
        Call(
            un.attacks.GradientAttack,
            {**settings(un.attacks.GradientAttack, label="one"), "loss": loss, "ascent": ascent},
            attacks,
        )
    )
    calls.append(
        Call(
            un.attacks.FunctionAttack,
            {
                **settings(un.attacks.FunctionAttack, label="one"),
                "function": replace(
                    loss, valid=lambda: lambda m, x, y: x, odd=threats.ODD_SUITE, words="returned|attack"
                ),
            },
            attacks,
        )
    )
    rule = Role(FastMinimumNorm, [*ANYTHING, *of(None, "fmn", FastMinimumNorm, un.maximise.PGD())])
    calls.append(Call(un.attacks.Descent, {**settings(un.attacks.Descent, label="one"), "rule": rule}, attacks))
    calls += [
        Call(kind, settings(kind, input_shape=(3, 8, 8), classes=3, width=2), is_network)
        for kind in classes_of("architectures", nn.Module)
        if kind is not un.architectures.Normalise
    ]
    calls.append(Call(un.Recipe, settings(un.Recipe)))
    return calls


def files() -> list[Call]:
    path = Role(
        lambda: "run",
        [*NO_PATH, *of(None)],
        of("none", ".", "file", "/proc/self/mem", "/dev/null", "x" * 300, Path("run/checkpoints")),
        "folder|path|run|file|config|weights|none",
    )
    spec = Role(
        lambda: "digits",
        [
            *but(ANYTHING, str),
            *of(
                None,
                "",
                " ",
                "~",
                "digit",
                "digits?a=1",
                "file",
                "none.npz",
                "os:system",
                "os:getcwd",
                "builtins:dict",
                "/",
                "..",
                "a:b:c",
                "?label=x",
                "\0",
                "x" * 5000,
                "%",
                "//",
                "file?label=",
            ),
        ],
        [],
        "data|spec|file|folder|name|import|choice|function|no value|npz",
    )
    trust = Role(lambda: False, YES.nonsense, of(True))
    shape = Role(
        lambda: (FEATURES,),
        [*but(ANYTHING, list), *of(None, 6, "6", [6.5], [-1], [True])],
        of((), (1, 4, 4), (0,), (10**12,), [FEATURES]),
    )
    name = Role(
        lambda: "mlp",
        [*but(ANYTHING, str), *of(None, "", "mpl", "os:system", "torch.nn:Linear", "builtins:dict", "a.b.c:d", "~")],
        [],
        "model|spec|import|name|module|argument",
    )
    several = Role(
        lambda: (0.0,),
        [*but(ANYTHING, list), *of(None, 0.5, "0", [math.nan], [None], ["a"])],
        of((), (0.5,) * FEATURES, (0.5, 0.5), [0.0], (1e30,)),
    )
    eps = Role(lambda: 0.1, [*NO_NUMBER, *of(None, -0.1, "8/255")], of(0, 1, 1e30, np.float32(0.1), 5e-324), "eps")
    norm = Role(lambda: "Linf", [*ANYTHING, *of(None, "", "linf", "L3", 2, math.inf, b"L2")], of("L1", "L2"), "norm")
    bounds = Role(
        lambda: (0.0, 1.0),
        [
            *but(ANYTHING, dict),
            *of(
                3,
                "0,1",
                (0,),
                (0, 1, 2),
                (1, 0),
                (math.nan, 1),
                (0, "1"),
                (0, None),
                (True, 1j),
                [[]],
                (torch.ones(2), torch.zeros(2)),
                (torch.zeros(2), torch.ones(3)),
                ({}, 1),
            ),
        ],
        of(
            None,
            (0, 0),
            [0, 1],
            np.array([0, 1]),
            torch.tensor([0.0, 1.0]),
            (-math.inf, math.inf),
            (torch.zeros(2), 1),
            (np.zeros(2), np.ones(2)),
        ),
        "bounds",
    )
    text = Role(
        lambda: "Linf:0.1",
        [
            *ANYTHING,
            *of(
                None,
                "",
                "Linf",
                ":",
                "Linf:",
                "Linf:-1",
                "Linf:1/0",
                "L3:1",
                "Linf:0.1:2",
                "Linf:0.1;",
                "Linf:nan",
                "Linf:1e999",
                "0.1",
                "x" * 10000,
            ),
        ],
        of("l2:0.5", "1:12", " Linf : 8/255 ", "2:1e-3"),
        "threat",
    )
    outcomes = Role(
        lambda: [evaluated()],
        [*but(ANYTHING, list), *of(None, [None], ["a"])],
        [lambda: [evaluated(), evaluated()], lambda: evaluated(), list],
    )
    named = Role(
        lambda: {"a": evaluated(), "b": evaluated()},
        [*ANYTHING, *of(None, {"a": None, "b": None}, {"a": "x"}, [1, 2])],
        [
            lambda: {"a": evaluated()},
            lambda: {"a": [evaluated()], "b": [evaluated()]},
            lambda: {"a": [], "b": []},
            lambda: {1: evaluated(), "b": evaluated()},
            lambda: [evaluated(), evaluated()],
        ],
    )
    suite = {
        **settings(un.Suite, name="one", note="a"),
        "attacks": Role(lambda: threats.quick().attacks, [*ANYTHING, *of(None, "pgd", ["pgd"], [un.maximise.PGD()])]),
        "l1": Role(lambda: (), [*but(ANYTHING, list), *of(None, "pgd", ["pgd"])]),
    }
    return [
        Call(un.load_run, {"folder": path, "trust": trust}),
        Call(
            un.load_weights,
            {
                "model": replace(MODEL, nonsense=networks.NO_MODULE),
                "path": replace(path, valid=lambda: "weights"),
                "strict": YES,
                "keep_normalisation": YES,
            },
        ),
        Call(
            un.save_weights,
            {
                "model": replace(MODEL, nonsense=networks.NO_MODULE),
                "path": replace(path, valid=lambda: "saved"),
                "about": Role(lambda: None, but(ANYTHING, dict), [lambda: {"a": object()}, lambda: {3: 4}]),
            },
        ),
        Call(un.load_data, {"spec": spec}),
        Call(
            un.build_model,
            {
                "spec": name,
                "arguments": Role(
                    dict,
                    [*but(ANYTHING, dict), *of(None, {"hiden": 3}, {"hidden": "many"}, {3: 4}, {"activation": "none"})],
                    of({"hidden": [4]}, {"hidden": []}, {"hidden": [0]}, {"hidden": [10**12]}),
                    "argument|hidden",
                ),
                "input_shape": shape,
                "classes": Role(lambda: CLASSES, NO_WHOLE, COUNTS),
                "mean": several,
                "std": replace(several, valid=lambda: (1.0,)),
            },
            is_network,
        ),
        Call(un.Threat, {"norm": norm, "eps": eps, "bounds": bounds}, is_threat),
        Call(un.Threat.parse, {"text": replace(text, words="threat|eps"), "bounds": bounds}, is_threat),
        Call(un.union, {"outcomes": replace(outcomes, words="outcome")}),
        Call(un.compare, {"networks": named}),
        Call(un.Suite, suite),
    ]
