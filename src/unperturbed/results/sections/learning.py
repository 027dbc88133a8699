"""Learning curves and the alarm's warnings."""

import math
from collections.abc import Sequence
from typing import Any

from unperturbed.reports.document import Block, LineChart, Paragraph, Part, Section, Series, Table, section
from unperturbed.results.stored import StoredRun

PROBES = (
    ("probe/clean", "clean"),
    ("probe/noise", "random noise"),
    ("probe/one_step", "one step"),
    ("probe/many_steps", "ten steps"),
)
"""The accuracies of the probe, with their perturbations."""
LOSSES = (("loss", "training loss"), ("probe/robust_loss", "held-out loss, ten steps"))


def learning(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run that has finished an epoch."""
    lead = (
        "After every epoch a probe measures accuracy on held-out training examples: clean, under random noise, under "
        "one step and under ten steps of projected gradient ascent. If the network resists one step but not ten, "
        "training suffers from catastrophic overfitting, and the alarm warns of it."
    )
    return section("Learning curves", [Part(run.name if len(runs) > 1 else "", _blocks(run)) for run in runs], lead)


def _blocks(run: StoredRun) -> tuple[Block, ...]:
    if not run.metrics:
        return ()
    blocks: list[Block] = []
    accuracies = _series(run, PROBES)
    if accuracies:
        blocks.append(
            LineChart("Accuracy on held-out examples", "epoch", "accuracy", accuracies, _last(accuracies, True), True,
                      marks=_marks(run))
        )  # fmt: skip
    losses = _series(run, LOSSES)
    if losses:
        blocks.append(LineChart("Loss", "epoch", "mean loss", losses, _last(losses, False)))
    blocks += _quantities(run)
    history = tuple((str(epoch), text) for epoch, text in alarms(run))
    if history:
        blocks.append(Table("Alarm", ("epoch", "warnings of the alarm"), history))
    else:
        blocks.append(Paragraph("The alarm raised no warning."))
    return tuple(blocks)


def alarms(run: StoredRun) -> list[tuple[int, str]]:
    """Return the epochs of the alarm's warnings and the warnings, in order."""
    warnings = []
    for warning in run.result.get("warnings") or ():
        head, colon, text = str(warning).partition(": ")
        number = head.removeprefix("Epoch ")
        if colon and number != head and number.isdecimal():
            warnings.append((int(number), text))
    return warnings


def _marks(run: StoredRun) -> tuple[tuple[float, str], ...]:
    first = dict[str, int]()
    for epoch, text in alarms(run):
        first.setdefault(text.partition(":")[0], epoch)
    return tuple((float(epoch), kind) for kind, epoch in first.items())


def _quantities(run: StoredRun) -> list[Block]:
    """Return a chart for each quantity of the method."""
    names = sorted({name for line in run.metrics for name in line if name.startswith("method/")})
    charts = list[Block]()
    for name in names:
        title = name.removeprefix("method/").replace("_", " ")
        series = _series(run, ((name, title),))
        if series:
            charts.append(LineChart(f"{title} (measured by the method)", "epoch", title, series, _last(series, False)))
    return charts


def _series(run: StoredRun, names: Sequence[tuple[str, str]]) -> tuple[Series, ...]:
    """Return the named values over epochs, if at least one is a number."""
    lines = [line for line in run.metrics if _number(line.get("epoch")) is not None]
    lines.sort(key=lambda line: float(line["epoch"]))
    epochs = tuple(float(line["epoch"]) for line in lines)
    values = [(title, tuple(_number(line.get(name)) for line in lines)) for name, title in names]
    return tuple(Series(title, epochs, y) for title, y in values if any(value is not None for value in y))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _last(series: Sequence[Series], percent: bool) -> str:
    """Return the last values in words."""
    parts = []
    for one in series:
        epoch, value = [(x, y) for x, y in zip(one.x, one.y, strict=True) if y is not None][-1]
        parts.append(f"{one.name} {f'{value:.1%}' if percent else f'{value:.4g}'} (epoch {epoch:g})")
    return f"Last values: {', '.join(parts)}."
