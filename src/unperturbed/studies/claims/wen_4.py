"""WEN-4: confidence."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import DIAGNOSIS
from unperturbed.studies.networks import BY_STRENGTH
from unperturbed.studies.settings import WEN_SCALES
from unperturbed.studies.strength import falls

WEN_4: Study = Study(
    "WEN-4",
    "With adversarial training, confidence falls.",
    source="Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, abstract",
    networks=BY_STRENGTH,
    measures=(DIAGNOSIS,),
    claims=(*falls("The probability of the predicted class falls", "probability of the predicted class, test"),),
    settings=WEN_SCALES,
)
