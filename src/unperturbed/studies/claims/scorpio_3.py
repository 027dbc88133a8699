"""SCORPIO-3: no obfuscated gradients."""

from torch import Tensor

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES, AUDIT, WEAK_ACCURACY
from unperturbed.studies.networks import AT_10, SCORPIO_3
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import SCORPIO_SCALES, against_the_strongest
from unperturbed.studies.values import Values

FALL = 0.06
"""The largest fall of the robust accuracy after an audit's remedies that is no sign of obfuscation."""


def _drop(values: Values, network: str) -> Tensor:
    """Return the robust accuracy that is lost from ten steps of PGD to AutoAttack."""
    return values.of(network, "weak") - values.of(network, "robust")


SCORPIO_3_STUDY: Study = Study(
    "SCORPIO-3",
    "SCORPIO does not obfuscate gradients.",
    source="Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923, abstract",
    networks=(AT_10, SCORPIO_3),
    measures=(ACCURACIES, WEAK_ACCURACY, AUDIT),
    claims=(
        Claim(
            "From PGD-10 to AutoAttack, SCORPIO loses at most two points more than AT",
            lambda values: _drop(values, "at-10") - _drop(values, "scorpio-3"),
            threshold=-0.02,
        ),
        Claim(
            "After the remedies of an audit, its robust accuracy falls by less than six points (six less the fall)",
            lambda values: FALL - values.of("scorpio-3", "fall after remedies"),
            resolution=0.01,
        ),
    ),
    settings=against_the_strongest(SCORPIO_SCALES),
)
