"""DALE-1: the trade-off between clean and robust accuracy."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import AT_10, DALE_LIMITED, TRADES_10
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import DALE_SCALES


def _more_accurate_than(rival: str) -> Claim:
    return Claim(
        f"DALE has a higher clean accuracy than {rival}",
        lambda values: values.of(DALE_LIMITED.name, "clean") - values.of(rival, "clean"),
    )


def _as_robust_as(rival: str) -> Claim:
    return Claim(
        f"DALE is at most one point less robust than {rival}",
        lambda values: values.of(DALE_LIMITED.name, "robust") - values.of(rival, "robust"),
        threshold=-0.01,
    )


DALE_1: Study = Study(
    "DALE-1",
    "DALE has a better trade-off between clean and robust accuracy than adversarial training and TRADES.",
    source="Robey et al. 2021, https://arxiv.org/abs/2110.15767, abstract",
    networks=(DALE_LIMITED, AT_10, TRADES_10),
    measures=(ACCURACIES,),
    claims=tuple(claim(rival) for rival in ("at-10", "trades") for claim in (_more_accurate_than, _as_robust_as)),
    settings=DALE_SCALES,
)
