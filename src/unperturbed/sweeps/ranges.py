"""Ranges of numbers that a search draws values from."""

import re
from dataclasses import dataclass

from unperturbed.checks import FINITE, NUMERAL, check_fields
from unperturbed.errors import InputError

DIGITS = 4
"""Significant digits of a drawn number: more would change no result that can be measured."""
_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^:]+?)\.\.(?P<high>.+)")


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included: whole numbers if both are `int`, else rounded to four digits.

    Attributes:
        low: the lowest number.
        high: the highest number.
        log: whether numbers are drawn evenly on a logarithmic scale.
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        """Raise InputError for an empty range, and for a logarithmic one that is not positive."""
        check_fields(self, low=FINITE, high=FINITE)
        if self.low >= self.high:
            raise InputError(f"The range {self} is empty: its first number must be the lower one.")
        if self.log and self.low <= 0:
            raise InputError(f"The range {self} is logarithmic, but {self.low} is not positive: leave out log.")

    def __str__(self) -> str:
        """Return the range as it is written in options: log:1e-4..0.1."""
        return f"{'log:' if self.log else ''}{self.low}..{self.high}"

    @property
    def is_whole(self) -> bool:
        """Whether the range consists of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def text(self, number: float) -> str:
        """Return a number of the range in four digits, as text."""
        if self.is_whole:
            return str(int(number))
        shown = f"{number:.{DIGITS}g}"
        if self.low <= float(shown) <= self.high:
            return shown
        return repr(float(min(max(number, self.low), self.high)))

    def value(self, text: str) -> int | float:
        """Return the number of a text."""
        return int(text) if self.is_whole else float(text)


def parse_range(text: str) -> Range | None:
    """Return the range of a text such as 1..10 or log:1e-4..0.1; None: it is no range.

    Raises:
        InputError: for a range that is empty, and for ends that are no numbers.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    ends = []
    for end in (match["low"].strip(), match["high"].strip()):
        if not NUMERAL.fullmatch(end):
            if match["log"] is None:
                return None  # a path, say
            raise InputError(f"The range {text!r} ends at {end!r}, which is no number: write log:1e-4..0.1.")
        ends.append(int(end) if end.lstrip("+-").isdigit() else float(end))
    return Range(ends[0], ends[1], match["log"] is not None)
