"""A share of a test's parameters for the fast tests, and all of them for the slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, values: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test: the first ones as they are, and the others marked slow."""
    return [value if k < count else _slow(value) for k, value in enumerate(values)]


def _slow(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.slow)
