"""A suite of attacks picked by name."""

from collections.abc import Sequence

from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import PGD_SUITE, Suite
from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.suites.autoattack import FEW, PLUS, STANDARD


def _by_label(*suites: Sequence[Attack]) -> dict[str, Attack]:
    return {attack.label.lower(): attack for attacks in suites for attack in attacks}


ATTACKS = _by_label(PGD_SUITE.attacks, PLUS.attacks, STANDARD.attacks)
_IN_L1 = _by_label(PGD_SUITE.attacks, PLUS.l1, STANDARD.l1)


@checked()
def custom(names: Sequence[str]) -> Suite:
    """Return the suite of these attacks, in this order, each as in `standard`, else as in `plus` or `pgd`.

    Args:
        names: such as "apgd-ce" and "square", however capitalised.

    Raises:
        InputError: on a name that is none of `ATTACKS`, and on one given twice.
    """
    known = [name.strip().lower() for name in names]
    for name in known:
        if name not in ATTACKS:
            raise InputError(f"There is no attack {name!r}; there is: {', '.join(ATTACKS)}.")
        if known.count(name) > 1:
            raise InputError(f"The attack {name!r} is given twice: once is all that it runs.")
    attacks = tuple(ATTACKS[name] for name in known)
    labels = ", ".join(attack.label for attack in attacks)
    return Suite(
        "custom-" + "_".join(known),
        attacks,
        f"upper bound only: {labels} alone, not all of AutoAttack",
        l1=tuple(_IN_L1[name] for name in known),
        few_classes=FEW if {"apgd-t", "apgd-dlr"} & {*known} else "",
    )
