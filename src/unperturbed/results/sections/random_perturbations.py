"""Accuracy under random perturbations."""

from collections.abc import Sequence

from unperturbed.evaluation.probable import Probable
from unperturbed.reports.document import Alert, Bar, BarChart, BarSeries, Block, Part, Section, section
from unperturbed.results.stored import StoredRun


def random_perturbations(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run that was measured under random perturbations."""
    lead = (
        "Random perturbations are no attack: an example that stays correct under nearly all of them may still have an "
        "adversarial example within the same radius."
    )
    parts = [
        Part(run.name if len(runs) > 1 else "", tuple(block for one in run.probables for block in _blocks(one)))
        for run in runs
    ]
    return section("Random perturbations", parts, lead)


def _blocks(one: Probable) -> tuple[Block, ...]:
    shares = [("clean", one.clean_accuracy), ("mean over draws", one.mean_accuracy)]
    shares += [(f"right on {100 * (1 - rho):.4g}% of draws", share) for rho, share in one.accuracy.items()]
    bars = tuple(Bar(name, share.value, share.low, share.high) for name, share in shares)
    undecided = sum(one.unknown.values())
    text = f"{one.draws} draws for each of {one.n} examples."
    text += f" Undecided, for want of finite logits: {undecided}." if undecided else ""
    title = f"Accuracy under random perturbations, {one.threat}"
    return (
        *((Alert("What to know before you trust these shares", one.warnings),) if one.warnings else ()),
        BarChart(title, "requirement", "share of examples", (BarSeries("", bars),), text),
    )
