"""WEN-1: changes of features."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import DIAGNOSIS
from unperturbed.studies.networks import BY_STRENGTH
from unperturbed.studies.settings import WEN_SCALES
from unperturbed.studies.strength import falls

WEN_1: Study = Study(
    "WEN-1",
    "Adversarial training makes changes in feature space smaller, and more uniform over directions.",
    source="Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, abstract",
    networks=BY_STRENGTH,
    measures=(DIAGNOSIS,),
    claims=(
        *falls("Changes of the features in the worst case become smaller", "feature change, worst case"),
        *falls("Changes of the features become more uniform over directions", "directional spread"),
    ),
    settings=WEN_SCALES,
)
