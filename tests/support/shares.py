"""A share of a test's parameters for the fast tests, all of them for the slow ones, and a share of these in CI."""

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, values: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test: the first ones as they are, and the others marked slow."""
    return [value if k < count else _marked(value, pytest.mark.slow) for k, value in enumerate(values)]


def in_ci(count: int, values: Iterable[Any]) -> list[Any]:
    """Return the parameters of a slow test: the first ones as they are, and the others marked long."""
    return [value if k < count else _marked(value, pytest.mark.long) for k, value in enumerate(values)]


def _marked(value: Any, mark: pytest.MarkDecorator) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=mark)
