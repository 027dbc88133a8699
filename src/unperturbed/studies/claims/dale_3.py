"""DALE-3: known methods as choices of distribution, and sampling against maximising."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import AT_10, DALE_ALONE, DALE_KL, DALE_MAXIMISED, DALE_SAMPLED, TRADES_10
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import DALE_SCALES


def _equal(network: str, known: str) -> Claim:
    return Claim(
        f"{network} is as robust as {known}, within two points",
        lambda values: values.of(network, "robust") - values.of(known, "robust"),
        kind="within",
        threshold=0.02,
    )


DALE_3: Study = Study(
    "DALE-3",
    "Known methods are choices of DALE's distribution; sampling is more robust than maximising at equal cost.",
    source="Robey et al. 2021, https://arxiv.org/abs/2110.15767, section 3",
    networks=(AT_10, DALE_ALONE, TRADES_10, DALE_KL, DALE_MAXIMISED, DALE_SAMPLED),
    measures=(ACCURACIES,),
    claims=(
        _equal("dale-alone-maximised", "at-10"),
        _equal("dale-kl-maximised", "trades"),
        Claim(
            "Sampling is more robust than maximising with as many steps",
            lambda values: values.of("dale", "robust") - values.of("dale-maximised", "robust"),
        ),
    ),
    settings=DALE_SCALES,
)
