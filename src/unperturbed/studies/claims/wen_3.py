"""WEN-3: margins."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import DIAGNOSIS
from unperturbed.studies.networks import BY_STRENGTH
from unperturbed.studies.settings import WEN_SCALES
from unperturbed.studies.strength import falls

WEN_3: Study = Study(
    "WEN-3",
    "With adversarial training, examples gather at the decision boundary.",
    source="Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, abstract",
    networks=BY_STRENGTH,
    measures=(DIAGNOSIS,),
    claims=(*falls("Output margins become smaller", "output margin, test"),),
    settings=WEN_SCALES,
)
