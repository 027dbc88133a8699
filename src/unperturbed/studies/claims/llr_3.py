"""LLR-3: gamma predicts the distance of the adversarial loss from its linear model."""

import torch
from scipy.stats import spearmanr
from torch import Tensor

from unperturbed.studies.design import Study
from unperturbed.studies.measures import LINEARITY
from unperturbed.studies.networks import AT_2, ERM_NETWORK, LLR_2
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import LLR_SCALES
from unperturbed.studies.values import Values


def _rank_correlation(values: Values, network: str) -> Tensor:
    """Return Spearman's rank correlation over the examples of each seed, (seeds, 1)."""
    pairs = zip(values.of(network, "gamma"), values.of(network, "excess"), strict=True)
    known = [(gamma, excess, gamma.isfinite() & excess.isfinite()) for gamma, excess in pairs]
    return torch.tensor(
        [[float(spearmanr(gamma[rows].numpy(), excess[rows].numpy()).statistic)] for gamma, excess, rows in known],
        dtype=torch.float64,
    )


def _predicts(network: str) -> Claim:
    return Claim(
        f"On {network}, gamma and the distance of the adversarial loss from linear have a rank correlation above 0.5",
        lambda values: _rank_correlation(values, network),
        threshold=0.5,
        unknown=None,
        percent=False,
        resolution=0.01,
    )


LLR_3: Study = Study(
    "LLR-3",
    "The local linearity measure gamma predicts how far the adversarial loss lies from its linear model.",
    source="Qin et al. 2019, https://arxiv.org/abs/1907.02610, eq. 5 and 6",
    networks=(ERM_NETWORK, AT_2, LLR_2),
    measures=(LINEARITY,),
    claims=(
        *(_predicts(network) for network in ("erm", "at-2", "llr")),
        Claim(
            "On erm, the searched gamma bounds the change of the adversarial loss for more than 95% of the examples",
            lambda values: values.of("erm", "bounded") - 0.95,
        ),
    ),
    settings=LLR_SCALES,
)
