"""What checks the annotations of the package under pytest, shapes included: beartype, with an int as a float.

A check sees types, shapes, dtypes and words, never numbers: what has passed once passes again. So a function is asked
once about each set of them, and a search that calls its parts thousands of times with the same shapes is not slowed.
"""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from beartype import BeartypeConf, beartype
from torch import Tensor


def checked(function: Callable[..., Any]) -> Callable[..., None]:
    """Return the check of a function that does nothing else.

    jaxtyping makes two such functions for each of the package's: one has its parameters, the other its result as well.
    """
    check = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
    passed: set[Hashable] = set()

    def ask(*args: Any, **kwargs: Any) -> None:
        looks = (*map(appearance, args), tuple(kwargs), *map(appearance, kwargs.values()))
        if looks not in passed:
            check(*args, **kwargs)
            passed.add(looks)

    return ask


def appearance(thing: object) -> Hashable:
    """Return all that an annotation asks of a value."""
    kind = type(thing)
    if isinstance(thing, Tensor):
        return kind, thing.shape, thing.dtype
    if isinstance(thing, str | type):
        return thing
    if isinstance(thing, tuple):
        return kind, *map(appearance, thing)
    if isinstance(thing, list | set | frozenset):
        return kind, frozenset(map(appearance, thing))
    if isinstance(thing, dict):
        return kind, *((key, appearance(value)) for key, value in thing.items())
    return (kind, thing.shape, thing.dtype) if isinstance(thing, np.ndarray) else kind
