"""Handling of failures on single examples: too little memory, or a network that raises."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from unperturbed.errors import InputError, RunError
from unperturbed.networks.guard import explain

T = TypeVar("T")
_MANY = 8


@runtime_checkable
class Seeing(Protocol):
    """An object that holds the number of examples that a network sees at a time."""

    batch_size: int


def within_memory(run: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """Return run(batch_size) and the batch size in the end: halved as often as memory runs out."""
    while True:
        try:
            return run(batch_size), batch_size
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not _lacks_memory(error):
                raise
        batch_size = batch_size // 2  # outside of the handler, which keeps the failed computation in memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def isolate(run: Callable[[Tensor], T], rows: Tensor) -> tuple[list[tuple[Tensor, T]], dict[int, BaseException]]:
    """Run on all rows, and where that fails on halves of them, down to each row alone.

    Returns the results with their rows, and the exceptions of rows that fail even alone. If all of many rows fail, the
    cause is not in the examples, and the error is raised; an `InputError` always is.
    """
    results: list[tuple[Tensor, T]] = []
    failures: dict[int, BaseException] = {}
    stack = [rows]
    while stack:
        part = stack.pop()
        try:
            results.append((part, run(part)))
            continue
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if len(part) == 1:
                failures[int(part)] = error
                continue
        stack += [half for half in part.tensor_split(2)[::-1] if len(half) > 0]
    if not results and len(rows) > _MANY:
        raise failed_on_all(failures)
    return results, failures


def carefully(
    run: Callable[[Tensor, int], T], rows: Tensor, seeing: Seeing
) -> tuple[list[tuple[Tensor, T]], dict[int, BaseException]]:
    """Return `isolate` of run(rows, batch_size), with the batch size that fits in memory; `seeing` keeps it."""

    def within(part: Tensor) -> T:
        result, seeing.batch_size = within_memory(lambda batch_size: run(part, batch_size), seeing.batch_size)
        return result

    return isolate(within, rows)


def failed_on_all(failures: dict[int, BaseException]) -> BaseException:
    """Return the exception for a network that fails on every example, even alone, with the place and the cause."""
    error = next(iter(failures.values()))
    if isinstance(error, RunError) or type(error).__name__ in ("AcceleratorError", "OutOfMemoryError"):
        return error
    failure = RunError(explain(error, f"running the network on {len(failures)} examples, which fail even alone"))
    failure.__cause__ = error
    return failure


def failed_on(failures: dict[int, BaseException], names: Tensor, what: str) -> list[str]:
    """Return a sentence on the examples that fail even alone; `names` are their ids."""
    if not failures:
        return []
    row, error = next(iter(failures.items()))
    return [f"On {len(failures)} examples {what} failed, even alone; on number {int(names[row])} with: {error!r:.200}"]


def _lacks_memory(error: BaseException) -> bool:
    """Tell whether this error of torch or Python means that memory has run out."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)
