"""A check that remembers what has passed must still find whatever a check that asks each time would find."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from support.checking import check_what_is_new, checked
from unperturbed.types import Bounds, Norm, PerExample, Rows, Terms


def longest(x: Float[Tensor, "n d"], rows: Rows, norm: Norm = "L2", cut: Callable[[Any], Any] = len) -> PerExample:
    return cut(x.norm(dim=1)[rows])  # type: ignore[no-any-return]


def shifted(limits: Bounds, terms: Terms, sizes: list[float], kind: type[Exception], *more: PerExample) -> None:
    pass


RIGHT: tuple[Any, ...] = (torch.ones(4, 3), torch.arange(4), "L1", lambda lengths: lengths)
ALSO: tuple[Any, ...] = ((0.0, 1.0), {"a": torch.ones(1)}, [0.5], ValueError, torch.ones(2))


@pytest.mark.parametrize(("function", "right", "place", "wrong"), [
    (longest, RIGHT, 0, torch.ones(4)),
    (longest, RIGHT, 0, torch.ones(4, 3, dtype=torch.int64)),
    (longest, RIGHT, 0, np.ones((4, 3))),
    (longest, RIGHT, 0, torch.ones(5, 3)),
    (longest, RIGHT, 1, torch.ones(4)),
    (longest, RIGHT, 1, [0, 1, 2, 3]),
    (longest, RIGHT, 2, "L3"),
    (longest, RIGHT, 2, 1),
    (longest, RIGHT, 3, "len"),
    (longest, RIGHT, 3, lambda lengths: lengths[:-1]),
    (longest, RIGHT, 3, lambda lengths: lengths[:, None]),
    (longest, RIGHT, 3, lambda lengths: lengths.long()),
    (longest, RIGHT, 3, lambda lengths: lengths.tolist()),
    (longest, RIGHT, 3, lambda lengths: None),
    (shifted, ALSO, 0, (torch.ones(1), np.ones(1))),
    (shifted, ALSO, 0, (0.0, "1")),
    (shifted, ALSO, 1, {"a": 1.0}),
    (shifted, ALSO, 1, {1: torch.ones(1)}),
    (shifted, ALSO, 2, ["a"]),
    (shifted, ALSO, 2, (0.5,)),
    (shifted, ALSO, 3, int),
    (shifted, ALSO, 4, torch.ones(2, 1)),
])  # fmt: skip
def test_what_is_wrong_is_found_after_what_is_right(
    function: Any, right: tuple[Any, ...], place: int, wrong: Any
) -> None:
    """And as often as it comes; by position or by name."""
    asked = check_what_is_new(typechecker=checked)(function)
    for _ in range(2):
        asked(*right)
        with pytest.raises(TypeCheckError):
            asked(*right[:place], wrong, *right[place + 1 :])
    if function is longest:
        names = ("x", "rows", "norm", "cut")
        asked(**dict(zip(names, right, strict=True)))
        with pytest.raises(TypeCheckError):
            asked(**{**dict(zip(names, right, strict=True)), names[place]: wrong})


def test_the_same_again_is_not_asked_again() -> None:
    class Watched(type):
        seen = 0

        def __instancecheck__(cls, thing: object) -> bool:
            Watched.seen += 1
            return True

    class Anything(metaclass=Watched):
        pass

    def taken(thing: Anything, x: Tensor) -> None:
        pass

    ask = check_what_is_new(typechecker=checked)(taken)
    counts = []
    for x in (torch.ones(2), torch.zeros(2), torch.zeros(3)):
        Watched.seen = 0
        ask(1, x)
        counts.append(Watched.seen)
    assert counts[0] > 0 and counts[1] == 0 and counts[2] > 0


def test_an_integer_passes_as_a_float() -> None:
    check_what_is_new(typechecker=checked)(shifted)((0, 1), {}, [1], OSError)
