"""The comparison of `make bench` with its baseline, and its tables."""

import json
from pathlib import Path

import pytest
from benchmarks.ratios import Row, joined, long_table, read_baseline, slower, unmatched, wide_table, write_baseline

STEP = Row("step", "at-10", "erm", (12.0, 13.1, 20.0), "11 forward")
ABSENT = Row("attack", "PGD-40", "ART", missing="not installed")


def test_the_ratio_is_the_median_of_the_repeats() -> None:
    assert joined([[Row("step", "at-10", "erm", (value,))] for value in (20.0, 12.0, 13.1)])[0].ratio == 13.1
    assert STEP.cell == "13.10 (12.00 to 20.00)"
    assert ABSENT.cell == "not installed"


@pytest.mark.parametrize(("base", "late"), [(10.0, True), (13.1 / 1.21, True), (13.1 / 1.19, False), (14.0, False)])
def test_a_row_is_slower_beyond_a_fifth_over_its_baseline(base: float, late: bool) -> None:
    assert bool(slower([STEP, ABSENT], {STEP.key: base, ABSENT.key: 1.0})) is late


def test_the_sentence_names_the_row_and_both_ratios() -> None:
    (sentence,) = slower([STEP], {STEP.key: 10.0})
    assert sentence == "slower: step: at-10 / erm: 1.31 times the baseline (13.10, baseline 10.00)"


def test_rows_without_a_partner_are_named() -> None:
    sentences = unmatched([STEP, ABSENT], {ABSENT.key: 1.0})
    assert sentences == ["not measured: attack: PGD-40 / ART", "no baseline: step: at-10 / erm"]


def test_a_baseline_keeps_other_processors(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert read_baseline(path, "avx2") is None
    write_baseline(path, "avx512_bf16", [STEP])
    write_baseline(path, "avx2", [STEP, ABSENT])
    assert read_baseline(path, "avx2") == read_baseline(path, "avx512_bf16") == {STEP.key: 13.1}
    assert list(json.loads(path.read_text())) == ["avx2", "avx512_bf16"]


def test_the_wide_table_has_a_column_for_each_comparison() -> None:
    rows = [STEP, Row("step", "at-10", "bare passes", (1.0,)), Row("step", "fgsm", "erm", (2.0,), "2 forward")]
    assert wide_table(rows, "method", {"erm": "to erm", "bare passes": "to passes"}) == [
        "| method | to erm | to passes | passes |",
        "|---|---|---|---|",
        "| at-10 | 13.10 (12.00 to 20.00) | 1.00 (1.00 to 1.00) | 11 forward |",
        "| fgsm | 2.00 (2.00 to 2.00) |  | 2 forward |",
    ]


def test_the_long_table_says_what_is_not_installed() -> None:
    assert long_table([ABSENT])[-1] == "| PGD-40 | ART | not installed |  |"
