"""OURS-2: robustness per second of training."""

from dataclasses import replace

from matplotlib.figure import Figure

from unperturbed.reports.charts.front import Timed, front_chart
from unperturbed.studies.design import Setting, Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.networks import OF_ALL
from unperturbed.studies.rule import Claim
from unperturbed.studies.settings import CIFAR_STRONG, DIGITS, MNIST, SCORPIO_CIFAR
from unperturbed.studies.values import Values


def _front(setting: Setting, values: Values) -> Figure:
    """Return robust accuracy against the seconds of all steps of training, one point per method."""
    points = [
        Timed(network.name, float(values.seconds[network.name].median()), values.share(network.name, "robust"))
        for network in OF_ALL
    ]
    return front_chart(points, "Robustness per second of training", f"{setting.name}, suite {setting.suite}")


def _more_robust_than(rival: str) -> Claim:
    return Claim(
        f"SCORPIO with one iteration is more robust than {rival}, of about the same cost",
        lambda values: values.of("scorpio-1", "robust") - values.of(rival, "robust"),
    )


OURS_2: Study = Study(
    "OURS-2",
    "For its training time, SCORPIO with one iteration is more robust than other methods of few passes.",
    source="this project: all methods under one suite",
    networks=OF_ALL,
    measures=(ACCURACIES,),
    claims=tuple(_more_robust_than(rival) for rival in ("at-2", "n-fgsm", "free")),
    settings={
        "small": (DIGITS,),
        "medium": (replace(MNIST, protocol="strong"), CIFAR_STRONG),
        "full": (replace(SCORPIO_CIFAR, protocol="strong"),),
    },
    timed=tuple(network.name for network in OF_ALL),
    draw=_front,
)
