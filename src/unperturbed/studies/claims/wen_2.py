"""WEN-2: singular values of the layers."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import DIAGNOSIS, SCALED_SPREAD, SPREAD
from unperturbed.studies.networks import BY_STRENGTH
from unperturbed.studies.settings import WEN_SCALES
from unperturbed.studies.strength import falls

WEN_2: Study = Study(
    "WEN-2",
    "Adversarial training lowers the spread of the singular values of the layers.",
    source="Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, abstract",
    networks=BY_STRENGTH,
    measures=(DIAGNOSIS,),
    claims=(
        *falls("The spread of the layers' singular values falls", SPREAD),
        *falls("The spread of the layers' singular values over the largest falls", SCALED_SPREAD),
        *falls(
            "The spread of the input Jacobian's singular values falls",
            "spread of the input Jacobian's singular values",
        ),
    ),
    settings=WEN_SCALES,
)
