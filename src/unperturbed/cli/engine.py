"""The options that choose where the work is executed."""

import sys
from typing import Any

from jsonargparse import ArgumentParser

from unperturbed.errors import InputError

OPTIONS = ("address", "workers", "cpus-per-worker", "gpus-per-worker")
"""The options of the engine `ray`."""


def add_engine_options(parser: ArgumentParser, unit: str = "the examples") -> None:
    """Add the options of engines; `unit` names what they execute."""
    parser.add_argument(
        "--engine",
        type=str | None,
        metavar="NAME",
        help=f"executes {unit}: local, ray (a cluster), or package.module:Class",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        metavar="auto|ray://HOST:PORT",
        help="with --engine ray: the cluster (default: one on this machine)",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        metavar="N",
        help="with --engine ray: workers (default: as many as fit); local: divide the work as for N",
    )
    parser.add_argument(
        "--cpus-per-worker",
        type=int | None,
        metavar="C",
        help="with --engine ray: processors and threads of a worker (default: 1)",
    )
    parser.add_argument(
        "--gpus-per-worker", type=int | None, metavar="G", help="with --engine ray: GPUs of a worker (default: 0)"
    )


def engine_of(parsed: Any) -> Any:
    """Return the engine of the options of a command; None: that of this process.

    Raises:
        InputError: for an unknown engine, options of a cluster with another engine, and if no cluster answers.
    """
    names = [name.replace("-", "_") for name in OPTIONS]
    given = {name: value for name in names if (value := getattr(parsed, name)) is not None}
    if parsed.engine == "ray":
        from unperturbed.engines.ray import Ray

        return Ray(**given)
    if parsed.engine == "local" and given.keys() == {"workers"}:
        from unperturbed.engines.local import Local

        return Local(**given)
    if given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise InputError(f"{option} is an option of --engine ray, but the engine is {parsed.engine or 'local'}.")
    if parsed.engine is None:
        return None
    from unperturbed.engines.by_name import find_engine

    return find_engine(parsed.engine, parsed.trust)


def disconnect() -> None:
    """Leave a Ray cluster: Ray writes to standard output when a node ends, and the results come there."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
