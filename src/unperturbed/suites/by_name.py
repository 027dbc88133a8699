"""Suites by name, found by file: those of the catalogue, attacks by name, functions, and import paths."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from unperturbed.attacks.base import Attack
from unperturbed.attacks.function import FunctionAttack
from unperturbed.attacks.gradient import Suite
from unperturbed.catalogue import listing
from unperturbed.checks import checked
from unperturbed.errors import InputError, hint
from unperturbed.imports import OWN, Trust, follow
from unperturbed.suites.autoattack import FEW

PREFERRED = ("standard", "plus", "pgd")
"""The order of suites in which the settings of an attack are looked up."""
FILE_NAME = r"[A-Za-z0-9][\w.-]*"


def _suites() -> dict[str, Suite]:
    """Return the suites of the catalogue by name."""
    suites: dict[str, Any] = {name: follow(entry.path, "suite", OWN) for name, entry in listing("suites").items()}
    return {name: suites[name] for name in sorted(suites, key=lambda name: (name not in PREFERRED, name))}


SUITES: dict[str, Suite] = _suites()


def _attacks(l1: bool) -> dict[str, Attack]:
    """Return the attacks of all suites by label, and the classes of the catalogue that need no arguments by name."""
    suites = [SUITES[name] for name in PREFERRED] + [suite for name, suite in SUITES.items() if name not in PREFERRED]
    attacks: dict[str, Attack] = {}
    for suite in suites:
        for attack in (*(suite.l1 if l1 else ()), *suite.attacks):
            attacks.setdefault(attack.label.lower(), attack)
    for name, entry in listing("attacks").items():
        kind: Any = follow(entry.path, "attack", OWN)
        attacks.setdefault(name, kind())
    return attacks


ATTACKS = _attacks(l1=False)
ATTACKS_IN_L1 = _attacks(l1=True)


def find_suite(suite: str | Suite | Callable[..., Any], trust: Trust = OWN) -> Suite:
    """Return the suite of a name, of attacks ("apgd-ce,square"), of a function or an import path, or of a suite.

    Raises:
        InputError: for an unknown name (with the nearest), and for an import path to another object.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Attack):
        raise InputError(f"The suite is the attack {suite!r:.80}: put it into one, Suite('mine', (attack,), 'a note').")
    if not isinstance(suite, str):
        label = getattr(suite, "__name__", type(suite).__name__)
        return Suite(label, (FunctionAttack(label, suite),), "upper bound only: one attack of the user's own")
    if suite in SUITES:
        return SUITES[suite]
    if suite.partition(":")[0] == "corruptions":
        raise InputError(
            "Corruptions are no suite of attacks: measure them by unperturbed evaluate RUN --suite corruptions, or "
            "un.corruption_accuracy."
        )
    if "," in suite or suite.strip().lower() in ATTACKS:
        return custom(suite.split(","))
    if ":" in suite:
        return _imported(suite, trust)
    near = hint(suite, [*SUITES, "corruptions"], unlisted=ATTACKS)
    raise InputError(f"There is no suite {suite!r}. {near} A suite of your own is given as package.module:SUITE.")


UNCHECKED = "-unchecked"
"""The end of the name of a suite whose gate is off: its results are others, in files and tables."""


def suite_with_gate(suite: Suite, gate: bool, estimate: float | None) -> Suite:
    """Return the suite of an evaluation: without its gate if the gate is off, and with a gate for an estimate.

    Raises:
        InputError: for an estimate that is no half-width in percentage points, and where it needs the gate of a suite
            that has none.
    """
    if estimate is None:
        if gate or suite.gate is None:
            return suite
        note = f"an upper bound; the check of survivors by {suite.gate.suite.name} is off"
        return replace(suite, name=suite.name + UNCHECKED, gate=None, note=note)
    if not 0 < estimate <= 50:
        raise InputError(
            f"estimate is {estimate}: give half the width of an interval in percentage points, such as 0.5."
        )
    gated = SUITES["fast"] if suite == SUITES["standard"] else suite
    if not gate or gated.gate is None:
        raise InputError(
            f"An estimate needs the check of a sample of survivors: use the suite fast, and not {suite.name}"
            f"{'' if gate else ' without its gate'}."
        )
    return replace(gated, gate=replace(gated.gate, half_width=estimate / 100))


def _imported(path: str, trust: Trust) -> Suite:
    suite = follow(path, "--suite", trust)
    if not isinstance(suite, Suite):
        raise InputError(f"--suite: {path} is of type {type(suite).__name__}, not a Suite (of attacks.gradient).")
    if suite.name in SUITES or not re.fullmatch(FILE_NAME, suite.name):
        raise InputError(
            f"--suite: {path} is called {suite.name!r}: give it a name that can be a file's, and none of "
            f"{', '.join(SUITES)}."
        )
    return suite


@checked()
def custom(names: Sequence[str]) -> Suite:
    """Return the suite of these attacks, in this order, each as in `standard`, else as in `plus` or `pgd`.

    Args:
        names: such as "apgd-ce" and "square", however capitalised.

    Raises:
        InputError: for a name outside `ATTACKS`, and for a name given twice.
    """
    requested = [name.strip().lower() for name in names]
    for name in requested:
        if name not in ATTACKS:
            raise InputError(f"There is no attack {name!r}. {hint(name, ATTACKS)}")
        if requested.count(name) > 1:
            raise InputError(f"The attack {name!r} is given twice: once is all that it runs.")
    attacks = tuple(ATTACKS[name] for name in requested)
    labels = ", ".join(attack.label for attack in attacks)
    return Suite(
        "custom-" + "_".join(requested),
        attacks,
        f"upper bound only: {labels} alone, not all of AutoAttack",
        l1=tuple(ATTACKS_IN_L1[name] for name in requested),
        few_classes=FEW if {"apgd-t", "apgd-dlr"} & {*requested} else "",
    )
