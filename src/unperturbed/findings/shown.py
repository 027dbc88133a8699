"""The text of a result on the Python prompt."""

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, repr=False)
class Shown:
    """A result whose repr is its class with its text: headline numbers, and no table of examples."""

    def __repr__(self) -> str:
        """Return the class with the text."""
        return f"{type(self).__name__}({self})"
