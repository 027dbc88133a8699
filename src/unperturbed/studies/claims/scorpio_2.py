"""SCORPIO-2: three iterations against adversarial training."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import AT_10, SCORPIO_3
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import SCORPIO_SCALES

SCORPIO_2: Study = Study(
    "SCORPIO-2",
    "SCORPIO with three iterations comes close to adversarial training at a much lower cost.",
    source="Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923, abstract",
    networks=(AT_10, SCORPIO_3),
    measures=(ACCURACIES,),
    claims=(
        Claim(
            "SCORPIO with three iterations is at most two points less robust than AT with ten steps",
            lambda values: values.of("scorpio-3", "robust") - values.of("at-10", "robust"),
            threshold=-0.02,
        ),
        Claim(
            "It takes less than two thirds of the time of AT with ten steps (two thirds less its share)",
            lambda values: 2 / 3 - values.time_share("scorpio-3", "at-10"),
            over="repeats",
        ),
    ),
    settings=SCORPIO_SCALES,
    timed=("at-10", "scorpio-3"),
)
