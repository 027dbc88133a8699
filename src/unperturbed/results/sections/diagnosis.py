"""The findings of a diagnosis: margins, layers, features, confidence."""

from collections.abc import Sequence

from unperturbed.findings import Examined
from unperturbed.reports.document import Part, Section, section
from unperturbed.reports.findings import finding_blocks
from unperturbed.results.stored import StoredRun

FEWEST = 2


def diagnosis(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section: a part for each subject, with all runs in its figures."""
    examined = [(about, model) for run in runs for about, model in run.examined]
    titles = dict.fromkeys(finding.title for _, model in examined for finding in model.findings)
    parts = [Part(title, finding_blocks(title, _networks_with(examined, title))) for title in titles]
    lead = " ".join(dict.fromkeys(about for about, _ in examined))
    return section("Diagnosis", parts, lead, side_by_side=False)


def _networks_with(examined: Sequence[tuple[str, Examined]], title: str) -> list[Examined]:
    """Return the networks with a finding of this title, with distinct names for several diagnoses of a run."""
    selected = [
        (about, model) for about, model in examined if any(finding.title == title for finding in model.findings)
    ]
    names = [model.name for _, model in selected]
    return [
        Examined(
            model.name
            if names.count(model.name) < FEWEST
            else f"{model.name}, {about.partition(';')[0].rpartition(' ')[2]}",
            model.strength,
            model.seed,
            tuple(finding for finding in model.findings if finding.title == title),
        )
        for about, model in selected
    ]
