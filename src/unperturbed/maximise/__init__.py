"""Maximisers of a score within a threat set, one rule per file: `maximise.PGD`."""

from typing import Any

from unperturbed.catalogue import contents, load


def __getattr__(name: str) -> Any:
    """Import a class when it is first used."""
    return load(__name__, name)


def __dir__() -> list[str]:
    """Return the classes."""
    return sorted(contents(__name__))
