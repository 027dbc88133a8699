"""DALE-2: the trade-off by the limit on the nominal loss."""

from matplotlib.figure import Figure

from unperturbed.reports.charts.trade_off import trade_off_chart
from unperturbed.statistics.domination import Point, mark_dominated
from unperturbed.studies.design import Setting, Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import dale_limited
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import DALE_SCALES
from unperturbed.studies.values import Values

LIMITS = tuple(dale_limited(rho) for rho in (0.05, 0.1, 0.2, 0.4))
LOWEST, HIGHEST = LIMITS[0].name, LIMITS[-1].name


def _trade_off(setting: Setting, values: Values) -> Figure:
    """Return clean against robust accuracy, one point per limit."""
    points = [
        Point(network.name, values.share(network.name, "clean"), values.share(network.name, "robust"))
        for network in LIMITS
    ]
    return trade_off_chart(mark_dominated(points), "The trade-off by the limit rho", setting.name)


DALE_2: Study = Study(
    "DALE-2",
    "The limit rho on the nominal loss, met by the dual variable, traces the trade-off.",
    source="Robey et al. 2021, https://arxiv.org/abs/2110.15767, eq. 7 and algorithm 1",
    networks=LIMITS,
    measures=(ACCURACIES,),
    claims=(
        Claim(
            "The lowest limit has a higher clean accuracy than the highest",
            lambda values: values.of(LOWEST, "clean") - values.of(HIGHEST, "clean"),
        ),
        Claim(
            "The highest limit is more robust than the lowest",
            lambda values: values.of(HIGHEST, "robust") - values.of(LOWEST, "robust"),
        ),
    ),
    settings=DALE_SCALES,
    draw=_trade_off,
)
