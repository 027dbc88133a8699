"""SCORPIO-4: alignment of input gradients."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ALIGNMENT
from unperturbed.studies.networks import CURE_NETWORK, GRADIENT_PENALTY, LLR_2, SCORPIO_3
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import SCORPIO_SCALES


def _better_aligned_than(rival: str, quantity: str) -> Claim:
    return Claim(
        f"SCORPIO has a higher {quantity} than {rival}",
        lambda values: values.of("scorpio-3", quantity) - values.of(rival, quantity),
        unknown=None,
        percent=False,
    )


SCORPIO_4: Study = Study(
    "SCORPIO-4",
    "SCORPIO's features are better aligned with human perception than those of other geometric methods.",
    source="Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923, abstract",
    networks=(SCORPIO_3, GRADIENT_PENALTY, CURE_NETWORK, LLR_2),
    measures=(ALIGNMENT,),
    claims=tuple(
        _better_aligned_than(rival, quantity)
        for rival in ("gradient-penalty", "cure", "llr")
        for quantity in ("cosine of gradient and image", "perceptual alignment")
    ),
    settings=SCORPIO_SCALES,
)
