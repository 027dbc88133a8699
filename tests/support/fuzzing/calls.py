"""The measurements and trainings of the Python API, with the roles of their arguments and what results must be."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import unperturbed as un
from support.fuzzing import data, networks, threats
from support.fuzzing.data import CLASSES, FEATURES, N
from support.fuzzing.judges import (
    are_certificates,
    are_distances,
    are_outcomes,
    is_diagnosis,
    is_loss,
    is_outcome,
    is_probable,
    is_trained,
    is_transfer,
    lies_inside,
)
from support.fuzzing.roles import (
    DATA,
    MODEL,
    OUT,
    PART,
    PROGRESS,
    SEED,
    SIZE,
    SUITE,
    THREAT,
    YES,
    Call,
    Role,
    classes_of,
    methods_of,
)
from support.fuzzing.values import ANYTHING, COUNTS, NO_NUMBER, NO_PATH, NO_WHOLE, NUMBERS, but, not_callable, of
from support.toys import linear
from unperturbed.examinations.by_name import BUILT_IN as NAMED
from unperturbed.methods.base import Method


def image_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), linear(16, CLASSES))


def evaluated_images() -> Any:
    return un.evaluate(image_network(), (data.images(), data.labels()), threats.threat(), threats.quick())


def evaluated() -> Any:
    return un.evaluate(linear(FEATURES, CLASSES), (data.inputs(), data.labels()), threats.threat(), threats.quick())


def measured(**more: Role) -> dict[str, Role]:
    return {
        "model": MODEL,
        "data": DATA,
        "threat": THREAT,
        "seed": SEED,
        "batch_size": SIZE,
        "output": PART,
        "progress": PROGRESS,
        **more,
    }


def measurements() -> list[Call]:
    numbers = Role(
        lambda: (0.1,),
        [*but(NO_NUMBER, list, tuple), *of([math.nan], ["a"], [None])],
        of([], 0, 1, [0, 0], [2], [-1], [0.5, 0.1], np.array([0.1]), (1, 2), [1]),
    )
    one = Role(
        lambda: {"a": linear(FEATURES, CLASSES), "b": linear(FEATURES, CLASSES, 1)},
        [
            *ANYTHING,
            *of(None),
            *(lambda make=make: {"a": make(), "b": linear(FEATURES, CLASSES)} for make in networks.BAD_MODEL),
        ],
        [
            lambda: {"a": linear(FEATURES, CLASSES)},
            lambda: {"": linear(FEATURES, CLASSES), 3: linear(FEATURES, CLASSES)},
            lambda: {"a/b": linear(FEATURES, CLASSES), "..": linear(FEATURES, CLASSES)},
            *(lambda make=make: {"a": make(), "b": linear(FEATURES, CLASSES)} for make in networks.ODD_MODEL),
        ],
        "model|network|weights|logits|label|name",
    )
    several = Role(
        lambda: [threats.threat()],
        [
            *ANYTHING,
            *of(None, "Linf:0.1", threats.threat(), [0.1], ["Linf:0.1"]),
            *(lambda make=make: [threats.threat(), make()] for make in threats.BAD_THREAT),
        ],
        [
            lambda: [threats.threat()] * 2,
            lambda: [threats.threat(), un.Threat("L2", 0.1)],
            lambda: [un.Threat("Linf", 0.1), un.Threat("Linf", 0.05)],
            lambda: (un.Threat("Linf", 0.1), un.Threat("Linf", 0.1, None)),
        ],
        "threat|bounds",
    )
    diagnostics = Role(
        lambda: (random.choice([*NAMED.values()]),),
        [*but(ANYTHING, list), *of(None, "margins", NAMED["margins"], ["margin"], [None], [3])],
        [*of([]), *([lambda d=d: [d] for d in NAMED.values()]), *of([lambda s: None], [lambda: None], [int])],
        "diagnostic",
    )
    examples = Role(
        lambda: 10,
        [*but(NO_WHOLE, str), *of("", "ten", "first:", "first:-1", "random:1.5", "first:ten", "2:3")],
        of(None, 0, 1, 3, 10**12, "first:3", "random:4", "stratified:5", "random:1000"),
    )
    precision = Role(lambda: "auto", [*ANYTHING, *of(None, 32, "64", "fp16")], of("32"))
    return [
        Call(un.evaluate, measured(suite=SUITE, out=OUT, overwrite=YES, precision=precision), is_outcome),
        Call(
            un.evaluate_threats,
            {
                **{
                    k: r
                    for k, r in measured(suite=replace(SUITE, odd=()), overwrite=YES, precision=precision).items()
                    if k != "threat"
                },
                "threats": several,
            },
            are_outcomes,
        ),
        Call(
            un.minimum_norm,
            measured(radii=replace(numbers, valid=lambda: None, words="radius"), out=OUT, overwrite=YES),
            are_distances,
        ),
        Call(
            un.probable_accuracy,
            measured(rho=replace(numbers, valid=lambda: 0.5), draws=Role(lambda: 5, NO_WHOLE, COUNTS)),
            is_probable,
        ),
        Call(
            un.certify,
            measured(
                sigma=Role(lambda: 0.2, NO_NUMBER, NUMBERS),
                radii=replace(numbers, valid=lambda: None, words="radii"),
                draws=Role(lambda: 5, NO_WHOLE, COUNTS),
                selection_draws=Role(lambda: 2, NO_WHOLE, of(0, 3)),
                alpha=Role(lambda: 0.1, NO_NUMBER, of(0, 0.5, 1, -1)),
            ),
            are_certificates,
        ),
        Call(
            un.transfer,
            {
                **{k: r for k, r in measured(suite=replace(SUITE, odd=()), out=OUT).items() if k != "model"},
                "models": one,
                "output": replace(PART, nonsense=not_callable(but(ANYTHING, str, dict))),
            },
            is_transfer,
        ),
        Call(
            un.diagnose,
            {
                **{k: r for k, r in measured(out=OUT).items() if k != "data"},
                "test": DATA,
                "train": replace(DATA, valid=lambda: None, nonsense=list(data.bad_data())),
                "diagnostics": diagnostics,
                "name": Role(lambda: "n", [*but(ANYTHING, str), *of(None, 3)], of("", "x" * 300, "a/b")),
                "strength": Role(lambda: 0.1, NO_NUMBER, NUMBERS),
                "examples": examples,
                "trained_seed": SEED,
            },
            is_diagnosis,
        ),
        Call(
            un.attack,
            {
                "model": MODEL,
                "x": Role(data.inputs, data.BAD_INPUTS, data.ODD_INPUTS, DATA.words),
                "y": Role(data.labels, data.BAD_LABELS, data.ODD_LABELS, DATA.words),
                "threat": THREAT,
                "suite": SUITE,
                "seed": SEED,
                "batch_size": SIZE,
                "output": PART,
            },
            lies_inside,
        ),
        Call(
            un.quantize,
            {
                "model": replace(MODEL, valid=image_network, odd=()),
                "data": replace(DATA, valid=lambda: (data.images(), data.labels())),
                "threat": THREAT,
                "outcome": Role(evaluated_images, [*ANYTHING, *of(None, "pgd", un.Outcome)]),
                "out": OUT,
                "output": replace(PART, words="outcome|output"),
            },
        ),
    ]


def training() -> list[Call]:
    extra = replace(DATA, valid=lambda: None, nonsense=list(data.bad_data()))
    recipe = Role(
        lambda: un.Recipe(epochs=1, batch_size=4, validation=0.3),
        [*ANYTHING, *of("fast", 3, un.Recipe, {"epochs": 1})],
        [
            lambda: un.Recipe(epochs=1, lr=1e30),
            lambda: un.Recipe(epochs=1, augment="crop"),
            lambda: un.Recipe(epochs=1, precision="bf16"),
            lambda: un.Recipe(epochs=1, precision="64"),
            lambda: un.Recipe(epochs=1, validation=0.99),
            lambda: un.Recipe(epochs=1, batch_size=1),
            lambda: un.Recipe(epochs=1, averaging=0.9, label_smoothing=0.5, patience=1),
        ],
        "recipe|validation|augment|crop|precision",
    )
    text = Role(lambda: "cpu", [*ANYTHING, *of(None, 3, "", "gpu", "cuda:99", "meta", "CPU", "cpu:7")], of("auto"))
    track = Role(lambda: (), [*but(ANYTHING, list), *of(None, "csv", ["wandb"], [None], [3])], of([]))
    config = Role(lambda: None, but(ANYTHING, dict), [lambda: {"a": object()}, lambda: {3: 4}, lambda: {"method": "x"}])
    weights = Role(lambda: None, NO_PATH, of("none.pt", ".", "file", "weights"), "weights|file|folder|empty")
    tensor_x = Role(
        data.inputs,
        data.BAD_INPUTS,
        [make for make in data.ODD_INPUTS if isinstance(make(), Tensor)],
        DATA.words + "|x",
    )
    tensor_y = Role(
        data.labels,
        data.BAD_LABELS,
        [make for make in data.ODD_LABELS if isinstance(make(), Tensor)],
        DATA.words + "|y",
    )
    ids = Role(
        lambda: None,
        ANYTHING,
        [
            lambda: torch.arange(N),
            lambda: torch.arange(3),
            lambda: torch.rand(N),
            lambda: torch.full((N,), -1),
            lambda: torch.arange(N)[:, None],
        ],
    )
    method = replace(methods_of(), odd=[lambda kind=kind: kind() for kind in classes_of("methods", Method)])
    some = replace(method, odd=[])
    return [
        Call(
            un.train,
            {
                "model": MODEL,
                "data": DATA,
                "threat": THREAT,
                "method": method,
                "recipe": recipe,
                "out": OUT,
                "resume": YES,
                "device": text,
                "devices": Role(lambda: 1, NO_WHOLE, of(0, 10**12, np.int64(1))),
                "extra": extra,
                "weights": weights,
                "output": PART,
                "track": track,
                "config": config,
                "progress": PROGRESS,
            },
            is_trained,
        ),
        Call(
            un.robust_loss,
            {
                "method": replace(method, nonsense=[*method.nonsense, *of(None)]),
                "model": MODEL,
                "x": tensor_x,
                "y": tensor_y,
                "threat": THREAT,
                "step": Role(lambda: 0, NO_WHOLE, of(0, 5, 2**62, 10**30)),
                "ids": ids,
                "seed": SEED,
                "output": PART,
            },
            is_loss,
        ),
        Call(
            un.robust_loss,
            {"method": some, "model": MODEL, "x": tensor_x, "y": tensor_y, "threat": THREAT, "step": SEED},
            is_loss,
        ),
    ]
