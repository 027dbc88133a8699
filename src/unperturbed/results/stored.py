"""All results in a run folder, as plain data, with sentences on damaged or missing ones."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from unperturbed.errors import InputError
from unperturbed.evaluation.certificates import Certificates
from unperturbed.evaluation.corruptions import UnderCorruptions
from unperturbed.evaluation.probable import Probable
from unperturbed.evaluation.stored import is_other, is_part, read_summary
from unperturbed.evaluation.union import Union
from unperturbed.findings import Examined, Finding, Outcome, Transfer
from unperturbed.reading import parse_json, read_small
from unperturbed.results.curves import StoredCurve, read_curve
from unperturbed.results.measurements import (
    TRANSFER,
    read_certificates,
    read_corruptions,
    read_probable,
    read_transfer,
    read_union,
)
from unperturbed.results.tables import with_verified_table
from unperturbed.runs import BEST, CONFIG, METRICS, MODEL, RESULT
from unperturbed.runs.files import slug
from unperturbed.runs.job import JOB
from unperturbed.runs.record import RunRecord
from unperturbed.runs.verify import LARGEST, read_object, read_sealed, read_verified

AUDIT = "audit.json"
OTHER = ("-robustbench.json", "-8bit.json")
"""Suffixes of JSON files with an evaluation in another format."""
KINDS = frozenset({"quantiles", "certified", "probable", "corruptions", "threats"})
"""Entries that only the summaries of a curve, certificates, random perturbations, corruptions and a union have."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class StoredEvaluation:
    """An evaluation, with its table of examples if intact."""

    path: Path
    outcome: Outcome
    radius: float
    """The eps of its threat; NaN if the text has none."""
    is_own: bool = True
    """Whether it measures the run's best weights on its whole test split: it lies outside the folders of other data,
    weights and selections, or has the weights and examples of one that does."""


@dataclass(frozen=True, eq=False)
class StoredDiagnosis:
    """The findings of a diagnosis.

    Attributes:
        path: its file.
        about: a text on its subject.
        examined: the findings.
        subject: what diagnoses must share to be compared: the test examples, the threat, the seed.
    """

    path: Path
    about: str
    examined: Examined
    subject: tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The content of a run folder.

    Attributes:
        name: of the run.
        folder: its path.
        record: the record of the training; None if missing or damaged.
        config: the text of config.yaml.
        result: of the training.
        metrics: one line per epoch.
        evaluations: in order of preference.
        curves: accuracy against eps.
        unions: worst cases over several threats.
        certificates: proved lower bounds.
        probables: accuracies under random perturbations.
        corruptions: accuracies under common corruptions.
        transfers: matrices of several models with this one, from the run folder and the folders next to it.
        audit: the result of an audit.
        diagnoses: in the order of their files.
        damaged: sentences on pieces that are unreadable or do not match.
        absent: sentences on results that were not measured, with the command.
        place: the folder in commands for readers of the results; None: `folder`.
    """

    name: str
    folder: Path
    record: RunRecord | None = None
    config: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[StoredEvaluation] = ()
    curves: Sequence[StoredCurve] = ()
    unions: Sequence[Union] = ()
    certificates: Sequence[Certificates] = ()
    probables: Sequence[Probable] = ()
    corruptions: Sequence[UnderCorruptions] = ()
    transfers: Sequence[Transfer] = ()
    audit: Mapping[str, Any] | None = None
    diagnoses: Sequence[StoredDiagnosis] = ()
    damaged: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    place: Path | None = None

    @property
    def headline(self) -> StoredEvaluation | None:
        """The evaluation to report: under the threat of training, on the run's own test data, by the strongest suite.

        That is the one of the most passes for an example that stands; of a suite that a stronger one checked on a
        sample, half of the stronger one's. `is_own` tells whether it is on the run's test data.
        """
        return self.evaluations[0] if self.evaluations else None


def read_run(folder: Path, name: str) -> StoredRun:
    """Return the content of a run folder.

    Raises:
        InputError: if it is no folder, or holds no files of a run.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give a run folder, which `unperturbed train` makes.")
    files = (CONFIG, METRICS, RESULT, BEST, MODEL, AUDIT)
    if not any((folder / piece).exists() for piece in files) and not (folder / "evaluation").is_dir():
        raise InputError(f"{folder} holds no run and no results: give a folder that `unperturbed train` has made.")
    damaged = list[str]()

    def tried(path: Path, read: Callable[[Path], T]) -> T | None:
        try:
            return read(path)
        except InputError as error:
            damaged.append(str(error))
        except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
            damaged.append(f"{path} cannot be read ({type(error).__name__}: {error}).")
        return None

    record = tried(folder, RunRecord.read)
    results = [(path, tried(path, _measured)) for path in _summaries(folder / "evaluation")]
    evaluations = [
        StoredEvaluation(path, one, radius_of(one.threat)) for path, one in results if isinstance(one, Outcome)
    ]
    outcomes = [stored.outcome for stored in evaluations]
    unions = [tried(path, _union_of(content, outcomes)) for path, content in results if isinstance(content, dict)]
    damaged += _unfinished(folder / "evaluation")
    audit = tried(folder / AUDIT, read_verified) if (folder / AUDIT).exists() else None
    diagnoses = [tried(path, lambda path: _diagnosis(path, name)) for path in sorted(folder.glob("diagnosis*.json"))]
    metrics = tried(folder / METRICS, lambda path: _lines(path, damaged)) or []
    result = (tried(folder / RESULT, read_verified) or {}) if (folder / RESULT).exists() else {}
    run = StoredRun(
        name=name,
        folder=folder,
        record=record,
        config=_text(folder / CONFIG),
        result=result,
        metrics=metrics,
        evaluations=_by_weight(_marked(evaluations, folder), record),
        curves=[one for _, one in results if isinstance(one, StoredCurve)],
        unions=_present(unions),
        certificates=[one for _, one in results if isinstance(one, Certificates)],
        probables=[one for _, one in results if isinstance(one, Probable)],
        corruptions=[one for _, one in results if isinstance(one, UnderCorruptions)],
        transfers=_present([tried(path, read_transfer) for path in _matrices(folder, outcomes)]),
        audit=audit,
        diagnoses=_present(diagnoses),
        damaged=tuple(dict.fromkeys(damaged)),
    )
    return _with_absent(run)


def _present(parts: Sequence[T | None]) -> list[T]:
    return [part for part in parts if part is not None]


def _union_of(content: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Callable[[Path], Union]:
    return lambda path: read_union(path, content, outcomes)


def radius_of(threat: str) -> float:
    """Return the eps in the text of a threat, such as "Linf:8/255 without bounds"; NaN if there is none."""
    number = (threat.partition(":")[2].split() or [""])[0].partition("[")[0]
    top, _, bottom = number.partition("/")
    try:
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return math.nan


def norm_of(threat: str) -> str:
    """Return the norm in the text of a threat."""
    return threat.partition(":")[0]


def _summaries(folder: Path) -> Iterator[Path]:
    """Yield the summaries below a folder: JSON files outside folders of parts.

    A suite with a gate keeps its attacks on samples of survivors among its parts: no accuracies of the network.
    """
    for path in sorted(folder.rglob("*.json")):
        in_parts = path.name == JOB or path.name.startswith(("part-", ".")) or is_part(path)
        if not in_parts and not path.name.endswith(OTHER) and path.name != TRANSFER:
            yield path


def _matrices(folder: Path, outcomes: Sequence[Outcome]) -> Iterator[Path]:
    """Yield the matrices in a run folder, and matrices beside the folder that have the weights of its evaluations."""
    inside = sorted(path for path in folder.rglob(TRANSFER) if not is_part(path))
    yield from inside
    weights = {outcome.environment["weights"] for outcome in outcomes}
    for path in sorted({*folder.parent.glob(f"*/{TRANSFER}")} - {*inside}):
        try:
            of_models = read_object(path)["environment"]["weights"].values()
        except (KeyError, TypeError, AttributeError):  # it may be of other runs
            continue
        if weights & {*of_models}:
            yield path


def _measured(
    path: Path,
) -> StoredCurve | Certificates | Probable | UnderCorruptions | Outcome | dict[str, Any] | None:
    """Return the result of a summary; a union as its content, and None for other kinds of results."""
    if not _is_result(path):
        return None
    content = read_verified(path)
    if "quantiles" in content:
        return read_curve(path, content)
    if "certified" in content:
        return read_certificates(path, content)
    if "probable" in content:
        return read_probable(path, content)
    if "corruptions" in content:
        return read_corruptions(path, content)
    if "threats" in content:
        return content
    return with_verified_table(path, read_summary(path))


def _is_result(path: Path) -> bool:
    """Tell whether a JSON file is the summary of a measurement; other files of the user's lie there, too."""
    content = parse_json(read_small(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object, but {type(content).__name__}.")
    if not KINDS.isdisjoint(content):
        return True
    is_evaluation = (path.with_suffix("") / JOB).exists() or {"suite", "counts", "attacks", "ties"} <= content.keys()
    return is_evaluation and not is_other(path.with_suffix(""))


def _unfinished(folder: Path) -> list[str]:
    """Return a sentence for each interrupted evaluation, without a summary."""
    jobs = [job.parent for job in sorted(folder.rglob(JOB)) if not is_part(job.parent)]
    return [
        f"{job} holds an evaluation without a summary: it still runs, or was interrupted. The same command resumes it."
        for job in jobs
        if not job.with_name(f"{job.name}.json").is_file()
    ]


def _marked(evaluations: Sequence[StoredEvaluation], folder: Path) -> list[StoredEvaluation]:
    """Return the evaluations, each with the answer whether it is on the run's own test data."""

    def measured(stored: StoredEvaluation) -> tuple[Any, Any]:
        return stored.outcome.environment["weights"], stored.outcome.environment["data"]

    home = folder / "evaluation"
    own = {
        measured(stored)
        for stored in evaluations
        if stored.path.parent in (home, home / slug(stored.outcome.threat))  # the place of another threat
    }
    return [replace(stored, is_own=measured(stored) in own) for stored in evaluations]


def _by_weight(evaluations: Sequence[StoredEvaluation], record: RunRecord | None) -> list[StoredEvaluation]:
    """Return evaluations in order of preference."""

    def weight(evaluation: StoredEvaluation) -> tuple[bool, bool, float, int]:
        outcome = evaluation.outcome
        of_training = record is not None and (norm_of(outcome.threat), evaluation.radius) == (
            norm_of(record.threat),
            radius_of(record.threat),
        )
        return of_training, evaluation.is_own, _strength(outcome), outcome.n

    return sorted(evaluations, key=weight, reverse=True)


def _strength(outcome: Outcome) -> float:
    """Return the passes for an example that stands, or of a sampled check half of its passes if these are more."""
    gate, standing, passes = outcome.gate, outcome.clean_accuracy.value * outcome.n, 0.0
    prefix = "" if gate is None else f"{gate.suite}: "
    for attack in outcome.attacks:
        if gate is None or not attack.name.startswith(prefix):
            passes += attack.forwards / max(standing, 1.0)
            standing = attack.robust_after * outcome.n
    if gate is None:
        return passes
    attacked = gate.survivors if gate.reason else gate.sampled
    checked = sum(attack.forwards for attack in outcome.attacks if attack.name.startswith(prefix)) / max(attacked, 1)
    return max(passes, checked if gate.reason else checked / 2)


def _diagnosis(path: Path, name: str) -> StoredDiagnosis:
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} is larger than {LARGEST:,} bytes: run the diagnosis on fewer examples.")
    content = read_sealed(path)
    if not content:
        raise InputError(f"{path} is damaged or was changed: run the diagnosis again.")
    findings = tuple(Finding.of(entry["finding"]) for entry in content["findings"].values())
    of = content["of"]
    about = f"Perturbations within {of['threat']}; {path.name}."
    subject = (str(of["test"]), str(of["threat"]), str(of["seed"]))
    return StoredDiagnosis(path, about, Examined(name, float(content.get("strength", 0.0)), 0, findings), subject)


def _lines(path: Path, damaged: list[str]) -> list[dict[str, Any]]:
    """Return the readable epochs of metrics.jsonl, with a sentence on the others."""
    if not path.exists():
        return []
    lines, bad = list[dict[str, Any]](), 0
    for line in read_small(path).splitlines():
        try:
            value = parse_json(line, path)
        except InputError:
            value = None
        lines += [value] if isinstance(value, dict) else []
        bad += not isinstance(value, dict)
    if bad:
        damaged.append(f"{path}: {bad} of {bad + len(lines)} lines cannot be read and are left out.")
    return lines


def _text(path: Path) -> str:
    try:
        return read_small(path)
    except InputError:
        return ""


def _with_absent(run: StoredRun) -> StoredRun:
    """Return the run with a sentence for each kind of result that was not measured."""
    folder = shlex.quote(str(run.folder))
    kinds = (
        ("robust accuracy", run.evaluations, f"unperturbed evaluate {folder} --suite standard"),
        ("accuracy against eps", run.curves, f"unperturbed curve {folder}"),
        ("audit", run.audit, f"unperturbed audit {folder}"),
        ("diagnosis", run.diagnoses, f"unperturbed diagnose {folder}"),
    )
    absent = tuple(f"No {noun}: {command}" for noun, content, command in kinds if not content)
    training = () if run.metrics else ("No learning curves: there is no metrics.jsonl with an epoch.",)
    return replace(run, absent=(*training, *absent))
