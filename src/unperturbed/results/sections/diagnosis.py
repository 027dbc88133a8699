"""The findings of a diagnosis: margins, layers, features, confidence, and their trends over the runs."""

from collections.abc import Sequence
from dataclasses import replace

from unperturbed.examinations.compare import compare
from unperturbed.findings import Comparison, Examined
from unperturbed.reports.diagnosis import diagnosis_parts
from unperturbed.reports.document import Section, section
from unperturbed.results.stored import StoredDiagnosis, StoredRun, norm_of

FEWEST = 2
FILE = "diagnosis-"


def diagnosis(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section: trends of runs that were trained at different eps, and a part for each subject."""
    diagnoses = [one for run in runs for one in run.diagnoses]
    lead = " ".join(dict.fromkeys(one.about for one in diagnoses))
    return section(
        "Diagnosis", diagnosis_parts(_with_distinct_names(diagnoses), _trends(runs)), lead, side_by_side=False
    )


def _trends(runs: Sequence[StoredRun]) -> Comparison | None:
    """Return the comparison of the diagnoses of all runs on the same examples; None where there is none."""
    diagnosed = [(run, {one.subject: one.examined for one in run.diagnoses}) for run in runs if run.diagnoses]
    shared = [subject for _, by_subject in diagnosed[:1] for subject in by_subject]
    shared = [subject for subject in shared if all(subject in by_subject for _, by_subject in diagnosed)]
    if not shared:
        return None
    pairs = [(run, by_subject[shared[0]]) for run, by_subject in diagnosed]
    norms = {norm_of(run.record.threat) for run, one in pairs if run.record is not None and one.strength > 0}
    if len(norms) > 1 or len({one.strength for _, one in pairs}) < FEWEST:
        return None
    return compare([Examined(one.name, one.strength, _seed(run), one.findings) for run, one in pairs])


def _seed(run: StoredRun) -> int:
    """Return the seed of a run's training; 0 if unknown."""
    recipe = None if run.record is None else run.record.recipe
    return int((recipe or {}).get("seed", 0))


def _with_distinct_names(diagnoses: Sequence[StoredDiagnosis]) -> list[Examined]:
    """Return the networks, with distinct names for several diagnoses of a run."""
    names = [one.examined.name for one in diagnoses]
    return [
        model
        if names.count(model.name) < FEWEST
        else replace(model, name=f"{model.name}, {one.path.stem.removeprefix(FILE)}")
        for one in diagnoses
        for model in [one.examined]
    ]
