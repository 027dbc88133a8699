"""Diagnosis of several networks on the same examples: findings, their comparison, and a page with figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.checks import SEED, checked
from unperturbed.data.names import usual_threat
from unperturbed.data.selection import Selection, choose, parse
from unperturbed.data.split import Data, Split
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.hashes import data_hash, version
from unperturbed.examinations.by_name import find_diagnostics
from unperturbed.examinations.compare import compare
from unperturbed.examinations.preparation import chosen
from unperturbed.examinations.runner import Diagnosis, diagnose
from unperturbed.examinations.subject import Diagnostic
from unperturbed.findings import Comparison, Examined, Progress, Shown, silent
from unperturbed.reports.diagnosis import diagnosis_document
from unperturbed.reports.page.render import page_of
from unperturbed.runs.files import slug, write_json, write_text
from unperturbed.runs.record import RunRecord
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.training.run import Run


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network for a diagnosis, with the record of its folder.

    Attributes:
        folder: of its findings.
        model: the network.
        data: the data of its examples.
        test: the test examples to select from.
        train: its training examples; None: unknown.
        threat: the threat set of its training.
        record: of its run, or None.
        parts: parts of the file name that distinguish its findings from others in the folder, such as other weights.
    """

    folder: Path
    model: nn.Module
    data: Data
    test: Split
    train: Split | None
    threat: Threat
    record: RunRecord | None
    parts: tuple[str, ...] = ()

    @property
    def strength(self) -> float:
        """The eps of its training; 0 for training without an attack, or if unknown."""
        return 0.0 if self.record is None or self.record.recipe is None else self.record.strength

    @property
    def trained_seed(self) -> int:
        """The seed of its training; 0 if unknown."""
        return 0 if self.record is None or self.record.recipe is None else int(self.record.recipe["seed"])


@dataclass(frozen=True, eq=False, repr=False)
class Diagnoses(Shown):
    """The diagnoses of several networks.

    Attributes:
        examined: the findings of each network.
        comparison: trends over the strength of training; None if the networks do not differ in it.
        threat: the size of perturbations.
        page: the page with figures.
        notes: on the selection of the examples.
        renewed: reasons why stored findings were computed again.
        failed: the errors of diagnostics by network and name; the other findings are complete.
        norms: of the trainings, if they differ and their eps cannot be compared.
    """

    examined: tuple[Examined, ...]
    comparison: Comparison | None
    threat: Threat
    page: Path
    notes: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    failed: Mapping[str, Mapping[str, str]] | None = None
    norms: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "page": str(self.page),
            "threat": str(self.threat),
            "warnings": list(self.notes),
            "models": [
                _plain(model) | {"findings": [finding.json() for finding in model.findings]} for model in self.examined
            ],
            "comparison": None if self.comparison is None else asdict(self.comparison),
        }

    def __str__(self) -> str:
        """Return the networks, the number of findings of each, and the page."""
        networks = ", ".join(f"{model.name} ({len(model.findings)} findings)" for model in self.examined)
        return f"{networks}; {self.page}"

    def raise_failures(self) -> None:
        """Raise RunError if diagnostics failed."""
        if self.failed:
            names = ", ".join(self.failed)
            raise RunError(f"Some diagnostics failed on {names}; the findings of the others are in {self.page}.")


@published(results_and_weights)
@checked(seed=SEED)
def diagnose_runs(
    runs: Sequence[Path | str],
    threat: Threat | None = None,
    *,
    diagnostics: Sequence[Diagnostic | str] = ("all",),
    examples: int | str = 1000,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    out: Path | str | None = None,
    trust: bool = False,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Diagnoses:
    """Diagnose the networks of run folders on the same examples, compare them, and write a page with figures.

    Args:
        runs: run folders of the same data.
        threat: the size of perturbations for all runs; None: the largest threat of the runs.
        diagnostics: names ("all": those of the package), or functions from a `Subject` to a `Finding`.
        examples: of the test examples, and as many training examples: N, "first:N", "stratified:N" or "random:N".
        seed: of random directions and starts.
        batch_size: examples in a batch.
        out: the folder of the page; None: that of the run, or one next to the runs.
        trust: whether import paths in the folders are followed.
        engine: executes the diagnostics: a name, an import path or an `Engine`; None: this process.
        progress: called before each diagnostic.

    Raises:
        InputError: if the runs cannot be compared.
        RunError: if diagnostics failed; the page and the other findings are written.
    """
    if len({Path(run).resolve() for run in runs}) < len(runs) or not runs:
        raise InputError(f"The runs are {', '.join(map(str, runs)) or 'none'}: name one or more, each once.")
    candidates = []
    for run in (Run.open(run, trust) for run in runs):
        test = run.data.test or run.data.train
        record = run.record
        candidates.append(Candidate(run.folder, run.model, run.data, test, run.trained_on, run.threat, record))
    diagnoses = diagnose_all(
        candidates,
        threat,
        find_diagnostics(diagnostics),
        parse(examples, None),
        seed,
        batch_size,
        out,
        progress,
        engine,
    )
    diagnoses.raise_failures()
    return diagnoses


def diagnose_all(
    candidates: Sequence[Candidate],
    threat: Threat | None,
    diagnostics: Sequence[Diagnostic],
    examples: Selection,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    out: Path | str | None = None,
    progress: Progress = silent,
    engine: str | Engine | None = None,
) -> Diagnoses:
    """Diagnose each candidate, compare them, and write the page; see `diagnose_runs`."""
    check_comparable(candidates, threat is not None, examples)
    size = threat or common_threat(candidates)
    home = common_home(candidates, out)
    results = []
    for number, (candidate, name) in enumerate(zip(candidates, names_of(candidates), strict=True)):

        def report(finished: float, total: float, text: str, before: int = number) -> None:
            progress(before + finished / total, len(candidates), text)

        results.append(
            diagnose(
                candidate.model,
                candidate.test,
                size,
                train=candidate.train,
                diagnostics=diagnostics,
                name=name,
                strength=candidate.strength,
                trained_seed=candidate.trained_seed,
                examples=str(examples),
                seed=seed,
                batch_size=batch_size,
                out=candidate.folder / _findings_file(candidate.parts, size, examples, seed),
                engine=engine,
                progress=report,
            )
        )
    return _summed_up(candidates, results, size, examples, seed, home)


def _summed_up(
    candidates: Sequence[Candidate],
    results: Sequence[Diagnosis],
    threat: Threat,
    examples: Selection,
    seed: int,
    home: Path,
) -> Diagnoses:
    """Compare the networks, and write the page and the comparison."""
    examined = [result.examined for result in results]
    norms = {
        candidate.record.threat.partition(":")[0]
        for candidate in candidates
        if candidate.record and candidate.strength > 0
    }
    comparable = len({model.strength for model in examined}) > 1 and len(norms) < 2
    comparison = compare(examined, seed) if comparable else None
    page = home / "diagnosis.html"
    facts = _facts(candidates[0], threat, examples, seed)
    write_text(page, page_of(diagnosis_document(examined, comparison, _title(examined), facts)))
    if comparison is not None:
        write_json(home / "comparison.json", {"models": [_plain(model) for model in examined]} | asdict(comparison))
    return Diagnoses(
        tuple(examined),
        comparison,
        threat,
        page,
        tuple(dict.fromkeys(text for result in results for text in result.notes)),
        tuple(result.made_again for result in results if result.made_again),
        {result.examined.name: result.failed for result in results if result.failed},
        tuple(sorted(norms)) if len(norms) > 1 else (),
    )


def _findings_file(parts: Sequence[str], threat: Threat, examples: Selection, seed: int) -> str:
    """Return the name of the file of findings, by threat, selection, seed, and other weights or data."""
    selected = f"first {examples.count}" if examples.how == "auto" else str(examples)
    seeded = [f"seed {seed}"] if seed else []
    return f"{slug('diagnosis', *parts, str(threat), selected, *seeded)}.json"


def check_comparable(candidates: Sequence[Candidate], has_threat: bool, examples: Selection) -> None:
    """Check that all networks are examined on the same examples (their positions pair them) and in one norm.

    Raises:
        InputError: if they are not.
    """
    if not has_threat:
        common_threat(candidates)
    if len(candidates) < 2:
        return
    first, *rest = candidates
    hashes = [data_hash(chosen(candidate.test, str(examples), "test")) for candidate in candidates]
    for candidate, digest in zip(rest, hashes[1:], strict=True):
        if digest != hashes[0] or first.data.classes != candidate.data.classes:
            raise InputError(
                f"{first.folder} is of the data {first.data.name!r} and {candidate.folder} of {candidate.data.name!r}, "
                "whose test examples differ: networks are compared on the same examples. Give --data, or diagnose "
                "them separately."
            )


def common_threat(candidates: Sequence[Candidate]) -> Threat:
    """Return the largest threat of the networks, for perturbations of one size."""
    threats = [candidate.threat for candidate in candidates]
    if len({threat.norm for threat in threats}) > 1:
        norms = ", ".join(sorted({threat.norm for threat in threats}))
        raise InputError(f"The networks were trained in different norms ({norms}): give --threat for all of them.")
    largest = max(threats, key=lambda threat: threat.eps)
    return largest if largest.eps > 0 else Threat.parse(usual_threat(candidates[0].data.name), largest.bounds)


def common_home(candidates: Sequence[Candidate], out: Path | str | None) -> Path:
    """Return the folder of the page: the requested one, the network's, or one next to the networks' folders."""
    if out is not None:
        return Path(out)
    first = candidates[0].folder
    return first if len(candidates) == 1 else first.parent / "diagnosis"


def names_of(candidates: Sequence[Candidate]) -> list[str]:
    """Return the folders' last names, or their paths if the names are not unique."""
    short = [candidate.folder.name for candidate in candidates]
    return short if len(set(short)) == len(short) else [str(candidate.folder) for candidate in candidates]


def _title(examined: Sequence[Examined]) -> str:
    return f"Diagnosis of {examined[0].name if len(examined) == 1 else f'{len(examined)} networks'}"


def _facts(candidate: Candidate, threat: Threat, examples: Selection, seed: int) -> list[str]:
    _, selection = choose(candidate.test, examples)
    selected = f"the first {selection.count}" if selection.how == "first" else str(selection)
    return [
        f"Data: {candidate.data.name}; {selected} test examples and as many of those trained on, unless a figure says "
        "otherwise.",
        f"Perturbations: {threat}, the same for every network.",
        f"unperturbed {version()}, PyTorch {torch.__version__}; seed {seed}.",
    ]


def _plain(examined: Examined) -> dict[str, Any]:
    return {"name": examined.name, "strength": examined.strength, "seed": examined.seed}
