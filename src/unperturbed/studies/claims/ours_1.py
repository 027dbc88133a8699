"""OURS-1: limited SCORPIO and LLR against DALE and TRADES at equal time."""

from unperturbed.studies.design import Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import DALE_LIMITED, LIMITED_LLR, LIMITED_SCORPIO, TRADES_10
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import DALE_SCALES

OURS = (LIMITED_SCORPIO.name, LIMITED_LLR.name)
RIVALS = (DALE_LIMITED.name, TRADES_10.name)


def _more_robust_than(ours: str, rival: str) -> Claim:
    return Claim(
        f"{ours} is more robust than {rival}",
        lambda values: values.of(ours, "robust") - values.of(rival, "robust"),
    )


def _not_slower(ours: str) -> Claim:
    return Claim(
        f"{ours} takes at most 1.15 times the time of trades (1.15 less its share)",
        lambda values: 1.15 - values.time_share(ours, "trades"),
        over="repeats",
    )


OURS_1: Study = Study(
    "OURS-1",
    "Under a limit on the nominal loss, SCORPIO and LLR are more robust than DALE and TRADES at equal time.",
    source="this project: the dual variable of DALE around the losses of SCORPIO and LLR",
    networks=(LIMITED_SCORPIO, LIMITED_LLR, DALE_LIMITED, TRADES_10),
    measures=(ACCURACIES,),
    claims=(
        *(_more_robust_than(ours, rival) for ours in OURS for rival in RIVALS),
        *(_not_slower(ours) for ours in OURS),
    ),
    settings=DALE_SCALES,
    timed=(*OURS, *RIVALS),
)
