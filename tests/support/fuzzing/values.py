"""Replacements for an argument: values that no argument takes, and makers of values."""

import decimal
import fractions
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Make = Callable[[], Any]


class Text(str):
    """A subclass of str."""


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no text")


def fail(error: BaseException) -> Any:
    raise error


def quietly(make: Make) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def of(*values: Any) -> list[Make]:
    return [lambda value=value: value for value in values]  # type: ignore[misc]


def but(makes: Sequence[Make], *kinds: type) -> list[Make]:
    """Return what makes no value of these kinds."""
    return [make for make in makes if not isinstance(make(), kinds)]


def not_callable(makes: Sequence[Make]) -> list[Make]:
    return [make for make in makes if not callable(make())]


ANYTHING: list[Make] = [
    lambda: b"bytes",
    lambda: object(),
    lambda: Unprintable(),
    lambda: {},
    lambda: {"a": 1},
    lambda: [],
    lambda: [None],
    lambda: set(),
    lambda: iter(()),
    lambda: slice(2),
    lambda: 1j,
    lambda: math.nan,
    lambda: -math.inf,
    lambda: type,
    lambda: torch,
    lambda: np.datetime64("2020-01-01"),
    lambda: torch.zeros(2, 2),
    lambda: np.ma.masked,
    lambda: Text("~"),
    lambda: "\0",
    lambda: NotImplemented,
    lambda: ...,
]
"""No argument is any of these."""
NO_NUMBER: list[Make] = [
    *ANYTHING,
    lambda: math.inf,
    lambda: "1",
    lambda: "",
    lambda: True,
    lambda: np.bool_(True),
    lambda: [1],
    lambda: (1, 2),
    lambda: np.array([1.0, math.nan]),
    lambda: np.float32(math.nan),
    lambda: torch.tensor(math.nan),
    lambda: torch.tensor([1, 2]),
    lambda: 10**400,
    lambda: 1e39,
    lambda: lambda: 1,
    lambda: decimal.Decimal("NaN"),
]
NO_WHOLE: list[Make] = [
    *NO_NUMBER,
    lambda: 1.5,
    lambda: 2.0,
    lambda: -1,
    lambda: -(10**12),
    lambda: fractions.Fraction(3, 2),
]
NO_PATH: list[Make] = [*ANYTHING, lambda: "", lambda: " ", lambda: "a\0b", lambda: 5, lambda: True, lambda: ["runs"]]
COUNTS = of(0, 1, 3, np.int64(2), np.uint8(2), 10**12, 2**63, 10**30)
NUMBERS = of(0, -1, 0.5, 1e-30, 1e30, -1e30, 5e-324, np.float32(0.5), np.int8(-3), 3)
