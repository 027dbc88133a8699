"""LLR-2: the drop from a weak to the strongest attack."""

from torch import Tensor

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES, WEAK_ACCURACY
from unperturbed.studies.networks import AT_2, LLR_2
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import LLR_SCALES, against_the_strongest
from unperturbed.studies.values import Values


def _drop(values: Values, network: str) -> Tensor:
    """Return the robust accuracy that is lost from ten steps of PGD to AutoAttack."""
    return values.of(network, "weak") - values.of(network, "robust")


LLR_2_STUDY: Study = Study(
    "LLR-2",
    "From a weak to the strongest attack, LLR with two steps loses less than adversarial training with two.",
    source="Qin et al. 2019, https://arxiv.org/abs/1907.02610, abstract: it avoids gradient obfuscation",
    networks=(AT_2, LLR_2),
    measures=(ACCURACIES, WEAK_ACCURACY),
    claims=(
        Claim(
            "AT with two steps loses more from PGD-10 to AutoAttack than LLR with two",
            lambda values: _drop(values, "at-2") - _drop(values, "llr"),
        ),
    ),
    settings=against_the_strongest(LLR_SCALES),
)
