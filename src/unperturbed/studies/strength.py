"""Claims on the effect of the strength of adversarial training."""

from unperturbed.studies.networks import FAMILIES
from unperturbed.studies.rule import Claim


def falls(sentence: str, quantity: str) -> tuple[Claim, ...]:
    """Return the claims, one for each family of networks, that a quantity falls from ordinary to full strength."""
    return tuple(_falls(f"{sentence}{family or ', no weight decay'}", quantity, family) for family in FAMILIES)


def _falls(sentence: str, quantity: str, family: str) -> Claim:
    return Claim(
        sentence,
        lambda values: values.of(f"standard{family}", quantity) - values.of(f"full{family}", quantity),
        unknown=None,
        percent=False,
    )
