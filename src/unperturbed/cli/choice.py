"""The choice of a training method by its cost, from three tables of docs/results.md."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from unperturbed.cli.console import Result, table

PAGE = "docs/results.md"
SECOND_DERIVATIVES = ("cure", "grad-align", "soar")
"""Methods that differentiate an input gradient; `llr` does so on networks without forward mode."""


@dataclass(frozen=True)
class Row:
    """A row of a table: accuracies in percent with the 95% interval, and seconds of training."""

    method: str
    robust: float
    low: float
    high: float
    seconds: float


@dataclass(frozen=True)
class Measured:
    """A table of docs/results.md.

    Attributes:
        section: its heading there.
        subject: data, threat, network, length of training and suite.
        rows: one of each method; the first is ordinary training.
    """

    section: str
    subject: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Pick:
    """The method for a cost: the cheapest one that is decidedly more robust than all cheaper picks.

    Attributes:
        section: heading of the table in docs/results.md.
        method: the method.
        time: its training time over that of ordinary training.
        robust: its robust accuracy in percent, an upper bound.
        low: of the 95% interval.
        high: of the 95% interval.
        alike: dearer methods of higher accuracy within this interval, the cheapest first.
    """

    section: str
    method: str
    time: float
    robust: float
    low: float
    high: float
    alike: tuple[str, ...]


TABLES = (
    Measured(
        "MNIST, Linf 0.3: every method",
        "small CNN, 7 epochs, suite pgd, n=1,000, one seed",
        (
            Row("erm", 0.0, 0.0, 0.4, 21),
            Row("fgsm", 0.1, 0.0, 0.6, 35),
            Row("rs-fgsm", 53.7, 50.6, 56.8, 36),
            Row("n-fgsm", 29.9, 27.1, 32.8, 38),
            Row("free", 84.8, 82.4, 86.9, 27),
            Row("at", 90.1, 88.1, 91.8, 130),
            Row("trades", 90.8, 88.8, 92.4, 217),
            Row("mart", 90.5, 88.5, 92.2, 204),
            Row("alp", 91.0, 89.1, 92.6, 199),
            Row("clp", 89.3, 87.2, 91.1, 189),
            Row("clp-original", 0.1, 0.0, 0.6, 24),
        ),
    ),
    Measured(
        "Local geometry: MNIST, Linf 0.1",
        "small CNN, 3 epochs, suite standard, n=1,000, one seed",
        (
            Row("erm", 50.4, 47.3, 53.5, 3),
            Row("scorpio", 95.3, 93.8, 96.4, 13),
            Row("llr", 95.6, 94.1, 96.7, 18),
            Row("gradient-penalty", 93.2, 91.5, 94.6, 8),
            Row("cure", 95.5, 94.0, 96.6, 20),
            Row("soar", 94.3, 92.7, 95.6, 19),
            Row("grad-align", 95.0, 93.5, 96.2, 13),
            Row("elle", 95.0, 93.5, 96.2, 12),
            Row("elle-a", 95.0, 93.5, 96.2, 12),
            Row("fw-at", 95.7, 94.3, 96.8, 18),
            Row("fw-at-adapt", 95.5, 94.0, 96.6, 5),
            Row("sora", 95.8, 94.4, 96.9, 6),
            Row("at", 95.6, 94.1, 96.7, 19),
        ),
    ),
    Measured(
        "Local geometry: CIFAR-10, Linf 8/255",
        "10,000 images, PreActResNet-18 of width 16, 3 epochs, suite standard, n=1,000, one seed",
        (
            Row("erm", 5.6, 4.3, 7.2, 9),
            Row("scorpio", 24.4, 21.8, 27.2, 32),
            Row("llr", 20.4, 18.0, 23.0, 68),
            Row("gradient-penalty", 23.2, 20.7, 25.9, 32),
            Row("cure", 20.9, 18.5, 23.5, 96),
            Row("soar", 22.4, 19.9, 25.1, 97),
            Row("grad-align", 24.2, 21.6, 27.0, 62),
            Row("elle", 24.4, 21.8, 27.2, 58),
            Row("elle-a", 24.8, 22.2, 27.6, 58),
            Row("fw-at", 24.2, 21.6, 27.0, 49),
            Row("fw-at-adapt", 24.7, 22.1, 27.5, 21),
            Row("sora", 23.2, 20.7, 25.9, 15),
            Row("at", 24.1, 21.6, 26.8, 48),
        ),
    ),
)
"""Copied from docs/results.md; a test compares them."""


def picks(measured: Measured) -> list[Pick]:
    """Return the picks of a table, the cheapest first.

    A method is a pick if the lower end of its interval is above the accuracy of the pick before it.
    """
    ordinary, by_time = measured.rows[0].seconds, sorted(measured.rows, key=lambda row: row.seconds)
    chosen: list[Row] = []
    for row in by_time:
        if not chosen or row.low > chosen[-1].robust:
            chosen.append(row)
    return [
        Pick(
            measured.section,
            row.method,
            round(row.seconds / ordinary, 1),
            row.robust,
            row.low,
            row.high,
            tuple(
                other.method
                for other in by_time
                if other.seconds >= row.seconds and row.robust < other.robust <= row.high
            ),
        )
        for row in chosen
    ]


def choice() -> Result:
    """Return the picks of all tables, with what they leave open."""
    chosen = {measured: picks(measured) for measured in TABLES}
    notes = (
        f"Tables of {PAGE}; time: of training, over that of ordinary training (erm). A method is listed if the lower "
        "end of its 95% interval is above the accuracy of the cheaper ones listed; 'not decided': dearer methods whose "
        "higher accuracy is within that interval.",
        f"Second derivatives are needed by {', '.join(SECOND_DERIVATIVES)}, and by llr on networks without forward "
        "mode: these run in float32 and without compilation.",
        "All were measured under Linf in short runs. The methods also train under L2 and L1, where no table exists "
        "yet; none trains under L0. Methods of one step may overfit catastrophically in longer runs: keep the alarm.",
    )
    values = [
        {**asdict(pick), "second_derivatives": pick.method in SECOND_DERIVATIVES, "measured": measured.subject}
        for measured, rows in chosen.items()
        for pick in rows
    ]
    return Result(values, (*(_view(measured, rows) for measured, rows in chosen.items()), *notes))


def _view(measured: Measured, rows: Sequence[Pick]) -> Table:
    cells = [
        (
            f"{pick.time:.1f}",
            pick.method,
            f"{pick.robust:.1f}% [{pick.low:.1f}%, {pick.high:.1f}%]",
            ", ".join(pick.alike) or "-",
        )
        for pick in rows
    ]
    return table(f"{measured.section} ({measured.subject})", ("time from", "take", "robust", "not decided"), cells)
