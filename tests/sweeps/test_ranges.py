"""Ranges of a search: how they are written, and what their numbers look like."""

import pytest

from unperturbed.errors import InputError
from unperturbed.sweeps.ranges import Range, parse_range


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1..10", Range(1, 10)),
        ("log:1e-4..1e-1", Range(1e-4, 0.1, log=True)),
        ("-1.5..2", Range(-1.5, 2)),
        ("0.1 .. 0.3", Range(0.1, 0.3)),
        ("log:1..100", Range(1, 100, log=True)),
    ],
)
def test_a_text_is_a_range(text: str, numbers: Range) -> None:
    assert parse_range(text) == numbers
    assert parse_range(str(numbers)) == numbers


@pytest.mark.parametrize("text", ["0.1", "a..b", "../data", "trades", "[1,2]", "Linf:1..2", ""])
def test_other_texts_are_values(text: str) -> None:
    assert parse_range(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3..1", r"3\.\.1 is empty"),
        ("1..1", r"1\.\.1 is empty"),
        ("log:0..1", "0 is not positive"),
        ("log:-1..1", "-1 is not positive"),
        ("log:a..1", "'a', which is no number"),
        ("1e999..2", "inf"),
    ],
)
def test_a_bad_range_is_refused_with_its_value(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_range(text)


def test_numbers_have_four_digits_and_stay_in_the_range() -> None:
    real = Range(0.12345678, 0.98765432)
    assert real.text(0.5555555) == "0.5556" and real.value("0.5556") == 0.5556
    assert real.text(real.low) == "0.1235" and real.text(real.high) == "0.98765432"
    whole = Range(1, 10)
    assert whole.text(7) == "7" and type(whole.value("7")) is int
    assert not Range(1.0, 10).is_whole and Range(1.0, 10).text(3) == "3"
