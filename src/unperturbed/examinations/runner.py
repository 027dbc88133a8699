"""Run diagnostics on a network, store each finding, and resume an earlier call."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.checks import COUNT, NOT_NEGATIVE, SEED, checked
from unperturbed.engines.base import Engine, Keep, Report, Unit
from unperturbed.engines.by_name import find_engine
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.chance import chance_warnings
from unperturbed.evaluation.hashes import data_hash, version, weights_hash
from unperturbed.examinations.by_name import find_diagnostics, name_of, source_of
from unperturbed.examinations.preparation import prepare
from unperturbed.examinations.subject import Diagnostic, Subject
from unperturbed.findings import Examined, Finding, Interval, Progress, Shown, silent
from unperturbed.networks.failures import isolate
from unperturbed.networks.logits import Output
from unperturbed.reading import parse_json, read_bytes
from unperturbed.runs.kept import Kept
from unperturbed.runs.lock import alone_in
from unperturbed.runs.verify import LARGEST, read_sealed
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Shown):
    """The diagnosis of one network: findings, and failed diagnostics."""

    examined: Examined
    failed: Mapping[str, str]
    """The errors of failed diagnostics, by name."""
    made_again: str
    """The reason why stored findings were not used; empty if they were, or there were none."""
    notes: tuple[str, ...] = ()
    """Notes on the selection of examples other than the first, and on a clean accuracy at chance level."""

    def __str__(self) -> str:
        """Return the network with the summary of each finding, one a line, and what failed."""
        summaries = [f"{finding.title}: {finding.summary}" for finding in self.examined.findings]
        return "\n".join([self.examined.name, *summaries, *(f"{name} failed: {e}" for name, e in self.failed.items())])


def _place(arguments: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder of the file of findings, and its name."""
    return None if arguments["out"] is None else (Path(arguments["out"]).parent, Path(arguments["out"]).stem)


@published(results_and_weights)
@checked(strength=NOT_NEGATIVE, trained_seed=SEED, examples=COUNT, seed=SEED, batch_size=COUNT)
@alone_in(_place)
def diagnose(
    model: nn.Module,
    test: Any,
    threat: Threat,
    *,
    train: Any = None,
    diagnostics: Sequence[Diagnostic | str] = ("all",),
    name: str = "network",
    strength: float = 0.0,
    trained_seed: int = 0,
    examples: int | str | None = 1000,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    out: str | Path | None = None,
    output: Output = None,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Examine a network with each diagnostic.

    Args:
        model: returns logits, or an object with logits; in float32 or float64.
        test: examples outside its training set: a split, a `Data` (its test split), a pair of arrays, a dataset.
        threat: the size of perturbations; the same for all compared networks.
        train: its training examples, in any of these forms.
        diagnostics: names ("all": those of the package), or functions from a `Subject` to a `Finding`.
        name: of the network in tables and figures.
        strength: the eps of its training, for comparisons.
        trained_seed: the seed of its training.
        examples: of each split: N, "first:N", "stratified:N" or "random:N" (see `data.selection.choose`); None: all.
        seed: of random directions and starts.
        batch_size: examples in a batch.
        out: a JSON file. Stored findings of the same network, examples and settings are reused, and every finding is
            written at once.
        output: the part of the model's output with the logits: a position, a name, or a function of it.
        engine: executes the diagnostics: a name, an import path or an `Engine`; None: this process.
        progress: called before each diagnostic.

    Raises:
        InputError: if model and data do not fit each other or the threat's box.
    """
    threat.refuse_sparse("The diagnosis")
    prepared = prepare(name, model, test, threat, train, (examples, examples), seed, batch_size, output)
    looked, subject, test, train = prepared.model, prepared.subject, prepared.test, prepared.train
    identity = {
        "unperturbed": version(),
        "torch": str(torch.__version__),
        "weights": weights_hash(model),
        "network": looked.network,
        "test": data_hash(test),
        "train": None if train is None else data_hash(train),
        "threat": str(threat),
        "seed": seed,
        "batch_size": subject.batch_size,
    }
    notes = [note for split in (test, train) if split is not None for note in split.notes]
    notes += chance_warnings(looked, test, threat, _clean(subject), seed)
    stored, made_again = _stored_findings(out, identity)
    if stored and looked.undescribed:
        made_again = (
            f"{out} may be of another network, since the hash does not cover {looked.undescribed[0]}: it was made "
            "again."
        )
        stored = {}
    chosen_diagnostics = find_diagnostics(diagnostics)
    titles = list(map(name_of, chosen_diagnostics))
    sources = [source_of(diagnostic, "diagnostics") for diagnostic in chosen_diagnostics]
    findings, failed, units = dict[str, Finding](), dict[str, str](), list[Unit[Finding | str]]()
    for number, (title, source) in enumerate(zip(titles, sources, strict=True)):
        if source and title in stored and stored[title]["source"] == source:
            findings[title] = Finding.of(stored[title]["finding"])
        else:
            units.append(Unit(number, 1, _Examination(chosen_diagnostics[number], subject, f"{name}: {title}")))
    before = len(findings)
    for number, finding in find_engine(engine).map(
        units, lambda finished, text: progress(before + finished, len(titles), text)
    ):
        title = titles[number]
        if isinstance(finding, str):
            failed[title] = finding
            continue
        findings[title] = finding
        stored[title] = {"source": sources[number], "finding": finding.json()}
        Kept(None if out is None else Path(out), identity).write(strength=strength, findings=stored)
    findings = {title: findings[title] for title in titles if title in findings}
    return Diagnosis(
        Examined(name, strength, trained_seed, tuple(findings.values())),
        failed,
        made_again,
        tuple(dict.fromkeys(notes)),
    )


@dataclass(frozen=True, eq=False)
class _Examination:
    """One diagnostic of a network, which any process can do."""

    diagnostic: Diagnostic
    subject: Subject
    text: str
    """For the progress."""

    def __call__(self, begun: None, keep: Keep, report: Report) -> Finding | str:
        """Return the finding, or the error of the diagnostic."""
        report(0.0, self.text)
        try:
            return _checked(self.diagnostic(self.subject), name_of(self.diagnostic))
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # any error of a user's diagnostic: the others continue
            return f"{type(error).__name__}: {error}"


def _clean(subject: Subject) -> Interval:
    """Return the accuracy on the test examples; failures of the network count as errors."""
    y = subject.test.y
    parts, _ = isolate(lambda rows: subject.logits(subject.test.x[rows]), torch.arange(len(y)))
    return wilson(sum(int((logits.argmax(1) == y[rows]).sum()) for rows, logits in parts), len(y))


def _checked(finding: object, title: str) -> Finding:
    if not isinstance(finding, Finding):
        raise InputError(f"The diagnostic {title} returned {type(finding).__name__}, but must return a Finding.")
    try:
        json.dumps(finding.json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(f"its finding is not of finite, plain numbers, as JSON is ({error})") from error
    return finding


def _stored_findings(out: str | Path | None, identity: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a file's findings of the same subject by name, and the differences if it is of another subject."""
    if out is None or not Path(out).exists():
        return {}, ""
    try:
        content = read_bytes(Path(out), LARGEST)
    except InputError as error:
        raise InputError(f"out: {error}") from error
    try:
        value = parse_json(content, out)
        differing = [key for key, setting in identity.items() if value["of"].get(key) != setting]
        stored = value["findings"].items()
        findings = {name: {"source": setting["source"], "finding": setting["finding"]} for name, setting in stored}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{out} is no diagnosis: move it away, or write to another place.") from error
    try:
        fit = bool(read_sealed(Path(out))) and all(Finding.of(entry["finding"]) for entry in findings.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        fit = False
    if not fit:
        return {}, f"{out} was damaged or changed: the diagnosis was made again."
    if differing:
        return {}, f"{out} held a diagnosis of other {', '.join(differing)}: it was made again."
    return findings, ""
