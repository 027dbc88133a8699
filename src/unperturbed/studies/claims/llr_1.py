"""LLR-1: the robustness of adversarial training with ten steps, in less time."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import AT_10, LLR_2
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import LLR_SCALES

LLR_1: Study = Study(
    "LLR-1",
    "Local linearity regularisation with two steps is as robust as adversarial training with ten, in less time.",
    source="Qin et al. 2019, https://arxiv.org/abs/1907.02610, abstract",
    networks=(AT_10, LLR_2),
    measures=(ACCURACIES,),
    claims=(
        Claim(
            "LLR with two steps is at most two points less robust than AT with ten",
            lambda values: values.of("llr", "robust") - values.of("at-10", "robust"),
            threshold=-0.02,
        ),
        Claim(
            "LLR takes less than half the time of AT with ten steps (half less its share)",
            lambda values: 0.5 - values.time_share("llr", "at-10"),
            over="repeats",
        ),
    ),
    settings=LLR_SCALES,
    timed=("at-10", "llr"),
)
