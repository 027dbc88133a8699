"""What to do when an evaluation fails on some examples: too little memory, or a network that raises."""

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

    places: int


def within_memory(run: Callable[[int], T], places: int) -> tuple[T, int]:
    """Return run(places), and how many places it took in the end: halved as often as memory runs out."""
    while True:
        try:
            return run(places), places
        except (RuntimeError, MemoryError) as error:
            if places == 1 or not _lacks_memory(error):
                raise
        places = places // 2  # outside of the handler, which keeps what was computed alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def isolate(run: Callable[[Tensor], T], rows: Tensor) -> tuple[list[tuple[Tensor, T]], dict[int, BaseException]]:
    """Run on all rows, and where that fails on halves of them, down to each row alone.

    Returns the results with the rows they belong to, and what the rows raised that fail even alone. What fails on
    every one of many rows is no matter of the examples, and raised; so is `InputError`, which says what to do.
    """
    results: list[tuple[Tensor, T]] = []
    failures: dict[int, BaseException] = {}
    waiting = [rows]
    while waiting:
        some = waiting.pop()
        try:
            results.append((some, run(some)))
            continue
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if len(some) == 1:
                failures[int(some)] = error
                continue
        waiting += [half for half in some.tensor_split(2)[::-1] if len(half) > 0]
    if not results and len(rows) > _MANY:
        raise failed_on_all(failures)
    return results, failures


def carefully(
    run: Callable[[Tensor, int], T], rows: Tensor, seeing: Seeing
) -> tuple[list[tuple[Tensor, T]], dict[int, BaseException]]:
    """Return `isolate` of run(rows, places), in as many places as memory holds; `seeing` remembers how many."""

    def within(some: Tensor) -> T:
        result, seeing.places = within_memory(lambda places: run(some, places), seeing.places)
        return result

    return isolate(within, rows)


def failed_on_all(failures: dict[int, BaseException]) -> BaseException:
    """Return what is raised where every example fails, even alone: that the network does, where and why."""
    error = next(iter(failures.values()))
    if isinstance(error, RunError) or type(error).__name__ in ("AcceleratorError", "OutOfMemoryError"):
        return error
    failure = RunError(explain(error, f"running the network on {len(failures)} examples, which fail even alone"))
    failure.__cause__ = error
    return failure


def failed_on(failures: dict[int, BaseException], names: Tensor, what: str) -> list[str]:
    """Return a sentence for the examples, called `names`, that fail even alone."""
    if not failures:
        return []
    row, error = next(iter(failures.items()))
    return [f"On {len(failures)} examples {what} failed, even alone; on number {int(names[row])} with: {error!r:.200}"]


def _lacks_memory(error: BaseException) -> bool:
    """Tell whether this is torch's or Python's way to say that memory has run out."""
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)
