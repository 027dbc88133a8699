"""The approximate cost of a suite."""

from unperturbed.attacks.gradient import Suite

UNKNOWN = 1000
"""Passes of an attack without settings that determine them."""
OF_A_PASS = 1 / 3
"""Cost of a forward without a backward."""


def suite_passes(suite: Suite, classes: int) -> float:
    """Return the approximate passes of a suite for an unbroken example."""
    total = 0.0
    for attack in suite.attacks:
        queries = getattr(attack, "queries", None)
        steps = getattr(getattr(attack, "ascent", attack), "steps", None)
        targets = min(getattr(attack, "targets", 1) or classes - 1, max(classes - 1, 1))
        if isinstance(queries, int):
            total += queries * OF_A_PASS
        elif isinstance(steps, int):
            total += (steps + 1) * attack.restarts * attack.draws * targets
        else:
            total += UNKNOWN
    return total
