"""SCORPIO-1: one iteration against regularisers of gradient and curvature."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import CURE_NETWORK, GRADIENT_PENALTY, SCORPIO_1
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import SCORPIO_SCALES


def _more_robust_than(rival: str) -> Claim:
    return Claim(
        f"SCORPIO with one iteration is more robust than {rival}",
        lambda values: values.of("scorpio-1", "robust") - values.of(rival, "robust"),
    )


SCORPIO_1_STUDY: Study = Study(
    "SCORPIO-1",
    "SCORPIO with one iteration is more robust than regularisation of the input gradient and of the curvature.",
    source="Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923, abstract",
    networks=(SCORPIO_1, GRADIENT_PENALTY, CURE_NETWORK),
    measures=(ACCURACIES,),
    claims=(_more_robust_than("gradient-penalty"), _more_robust_than("cure")),
    settings=SCORPIO_SCALES,
)
