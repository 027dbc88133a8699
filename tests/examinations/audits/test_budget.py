"""The plan of an audit: passes by the settings of the attacks, examples and strength by the time that there is."""

from dataclasses import replace

import pytest

from unperturbed.examinations.budget import (
    REMEDIED,
    STANDING,
    WEAKEST,
    Clock,
    Plan,
    check_passes,
    checks_in,
    checks_passes,
    suite_passes,
)
from unperturbed.examinations.clock import Start
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.pgd import PGD_SUITE

PLAN = Plan(100, 60.0, 1.0, 128, 100.0, 1e-4, 1000.0)


def test_the_passes_of_a_suite_follow_from_its_settings() -> None:
    assert suite_passes(PGD_SUITE, 10) == 2 * 51 * 10
    climbs, blocks, square = 101 * (1 + 9), 101 * 9, 5000 / 3
    assert suite_passes(STANDARD, 10) == pytest.approx(climbs + blocks + square)
    assert suite_passes(STANDARD, 3) < suite_passes(STANDARD, 10), "fewer classes, fewer targets"


def test_the_passes_of_all_checks_are_the_sum() -> None:
    total = sum(check_passes(check, PGD_SUITE, 10) for check, _ in checks_in())
    assert checks_passes(PGD_SUITE, 10) == pytest.approx(total)


def test_the_clock_slows_down_with_the_machine_and_never_speeds_up() -> None:
    clock = Clock(PLAN, Start.now())
    assert clock.seconds(1000) == pytest.approx(0.1) and 99 < clock.left <= 100
    clock.record(1000, 0.3)
    assert clock.seconds(1000) == pytest.approx(0.3)
    clock.record(100_000, 0.0)
    assert clock.seconds(1000) == pytest.approx(0.1)
    assert clock.remedied(0.5) == pytest.approx(0.5 * STANDING * 100 * REMEDIED * 1e-4)


def test_a_plan_beyond_the_budget_says_so() -> None:
    assert "more than the budget" not in str(PLAN) and "100 examples, about 60 s" in str(PLAN)
    assert "more than the budget of 100 s" in str(replace(PLAN, seconds=130.0))
    assert 0 < WEAKEST < 1 and Plan(**PLAN.json()) == PLAN
