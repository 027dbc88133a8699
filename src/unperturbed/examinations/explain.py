"""Explain one network: run the explanations, and write scores, arrays and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.catalogue import listing
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.split import Split
from unperturbed.errors import InputError, RunError, hint
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.hashes import data_hash, version, weights_hash
from unperturbed.examinations.by_name import source_of
from unperturbed.examinations.explanations.base import Explainer, Explanation
from unperturbed.examinations.explanations.maps import captum
from unperturbed.examinations.kept_explanations import INDEX, OF, KeptExplanations, remove_others
from unperturbed.examinations.preparation import Prepared, prepare
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Progress, Shown, silent
from unperturbed.imports import OWN, Trust, follow
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.logits import Output
from unperturbed.reports.charts.pictures import Grid, pictures_chart, png_of
from unperturbed.reports.charts.style import save_chart
from unperturbed.runs.files import write_atomically, write_json
from unperturbed.runs.lock import alone_in
from unperturbed.runs.tensors import write_tensors
from unperturbed.runs.verify import digest
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.types import Batch, Norm

FOLDER = "explanation"
ARRAYS = "explanation.safetensors"
Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = ("svg", "png", "pdf")
TRAINING = 2000
"""The largest number of training examples for class means and spectra."""


@dataclass(frozen=True, eq=False, repr=False)
class Explained(Shown):
    """The explanations of one network.

    Attributes:
        name: of the network in tables and figures.
        threat: of adversarial inputs.
        examples: number of explained examples.
        explanations: by name.
        warnings: notes of the explanations, and on the selection of the examples.
        failed: the errors of failed explanations, by name.
    """

    name: str
    threat: Threat
    examples: int
    explanations: Mapping[str, Explanation]
    warnings: tuple[str, ...] = ()
    failed: Mapping[str, str] | None = None

    def __str__(self) -> str:
        """Return the network with the summary of each explanation, one a line."""
        findings = [explanation.finding for explanation in self.explanations.values()]
        summaries = [f"{finding.title}: {finding.summary}" for finding in findings]
        return "\n".join([f"{self.name}, {self.examples} examples", *summaries])

    def json(self) -> dict[str, Any]:
        """Return plain values, without pictures and arrays."""
        findings = {name: explanation.finding.json() for name, explanation in self.explanations.items()}
        return {
            "unperturbed": version(),
            "torch": str(torch.__version__),
            "model": self.name,
            "threat": str(self.threat),
            "examples": self.examples,
            "explanations": findings,
            "warnings": list(self.warnings),
            "failed": dict(self.failed or {}),
        }

    def raise_failures(self) -> None:
        """Raise RunError if explanations failed."""
        if self.failed:
            texts = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
            raise RunError(f"Some explanations of {self.name} failed ({texts}); the others are complete.")


def find_explanations(names: Sequence[Explainer | str], trust: Trust = OWN) -> dict[str, Explainer]:
    """Return the explanations of these names and import paths, in order; "all" are those of the package.

    Raises:
        InputError: for an unknown name, with the nearest, and for an import path that names no function.
    """
    entries, explainers = listing("examinations/explanations"), dict[str, Any]()
    for name in names:
        if not isinstance(name, str):
            explainers[name.__name__] = name
        elif name == "all":
            explainers |= {entry.name: follow(entry.path, "explanation", OWN) for entry in entries.values()}
        elif name in entries:
            explainers[name] = follow(entries[name].path, "explanation", OWN)
        elif ":" in name:
            function = follow(name, "--explanations", trust)
            if not callable(function):
                raise InputError(f"--explanations: {name} is no function from a Subject to an Explanation.")
            explainers[name.rpartition(":")[2]] = function
        else:
            raise InputError(f"There is no explanation {name!r}. {hint(name, entries)}")
    return explainers


def _place(arguments: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder of the explanations' folder, and its name."""
    out = None if arguments["out"] is None else Path(arguments["out"]).absolute()
    return None if out is None else (out.parent, out.name)


@published(results_and_weights)
@checked(examples=COUNT, seed=SEED, batch_size=COUNT)
@alone_in(_place)
def explain(
    model: nn.Module,
    test: Any,
    threat: Threat,
    *,
    train: Any = None,
    explanations: Sequence[Explainer | str] = ("all",),
    name: str = "network",
    examples: int | str | None = 200,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    judge: nn.Module | None = None,
    curves: Sequence[Distances] = (),
    out: str | Path | None = None,
    figures: Sequence[Format] = (),
    output: Output = None,
    progress: Progress = silent,
) -> Explained:
    """Explain a network by saliency maps and synthesised inputs, with scores of their reliability.

    With `out`, every finished explanation is written at once: the same call resumes an interrupted one.

    Args:
        model: returns logits, or an object with logits; in float32 or float64.
        test: examples outside its training set: a split, a `Data` (its test split), a pair of arrays, a dataset.
        threat: of adversarial inputs; synthesised inputs lie in its box.
        train: its training examples, for class means and the mean spectrum.
        explanations: names ("all": those of the package), functions from a `Subject` to an `Explanation`, or their
            import paths, package.module:Name.
        name: of the network in tables and figures.
        examples: of the test split: N, "first:N", "stratified:N" or "random:N"; None: all.
        seed: of random directions, starts and weights.
        batch_size: examples in a batch.
        judge: a second network, preferably a robust one, that judges whether counterfactuals show their target class.
        curves: results of `minimum_norm` for this network and test split; Etmann's alignment is given beside them.
        out: a folder for scores, arrays and pictures; None: no files.
        figures: formats of each grid of pictures: "svg", "png", "pdf".
        output: the part of the model's output with the logits: a position, a name, or a function of it.
        progress: called before each explanation.

    Raises:
        InputError: if model and data do not fit each other or the threat's box, for unknown names, and without Captum.
    """
    threat.refuse_sparse("An explanation by attacks")
    captum()
    if unknown := [suffix for suffix in figures if suffix not in FORMATS]:
        raise InputError(f"There is no figure format {unknown[0]!r}: the formats are {', '.join(FORMATS)}.")
    explainers = find_explanations(explanations)
    prepared = prepare(name, model, test, threat, train, (examples, TRAINING), seed, batch_size, output)
    judging = None if judge is None else _judge(judge, prepared.subject.test, prepared.model.classes, prepared.test)
    subject = replace(prepared.subject, judge=judging, distances=_nearest_of(curves))
    identity = _identity(model, judge, prepared, subject)
    kept = KeptExplanations(None if out is None or prepared.model.undescribed else Path(out), identity)
    explanations_by_name, failed = _all_of(explainers, subject, kept, progress)
    warnings = [
        *prepared.model.warnings,
        *(
            f"{explanation.finding.title}: {note}"
            for explanation in explanations_by_name.values()
            for note in explanation.finding.notes
        ),
    ]
    explained = Explained(name, threat, len(subject.test.x), explanations_by_name, tuple(warnings), failed)
    if out is not None:
        remove_others(Path(out), digest(identity))
        write_explained(explained, Path(out), figures, digest(identity))
    return explained


def _all_of(
    explainers: Mapping[str, Explainer], subject: Subject, kept: KeptExplanations, progress: Progress
) -> tuple[dict[str, Explanation], dict[str, str]]:
    """Return the explanations by name, kept or new, and the errors of failed ones."""
    explanations, failed = dict[str, Explanation](), dict[str, str]()
    for number, (name, explainer) in enumerate(explainers.items()):
        progress(number, len(explainers), f"{subject.name}: {name}")
        source = source_of(explainer, "explanations")
        explanation = kept.read(name, source)
        if explanation is None:
            try:
                explanation = explainer(subject)
            except InputError:
                raise
            except Exception as error:  # any error of a user's explanation: the others continue
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            kept.write(name, source, explanation)
        explanations[name] = explanation
    return explanations, failed


def _identity(model: nn.Module, judge: nn.Module | None, prepared: Prepared, subject: Subject) -> dict[str, Any]:
    """Return what the explanations depend on, by name."""
    return {
        "unperturbed": version(),
        "torch": str(torch.__version__),
        "weights": weights_hash(model),
        "network": prepared.model.network,
        "test": data_hash(prepared.test),
        "train": None if prepared.train is None else data_hash(prepared.train),
        "threat": str(subject.threat),
        "seed": subject.seed,
        "batch_size": subject.batch_size,
        "judge": None if judge is None else weights_hash(judge),
        "distances": digest([[norm, sorted(known.items())] for norm, known in subject.distances.items()]),
    }


def _nearest_of(curves: Sequence[Distances]) -> dict[Norm, dict[int, float]]:
    """Return the smallest known distance by norm and id; every one is an upper bound."""
    nearest = dict[Norm, dict[int, float]]()
    for curve in curves:
        norm: Any = curve.threat.partition(":")[0]
        if norm == "L0":  # the alignment has no dual norm there
            continue
        known = nearest.setdefault(norm, {})
        for name, distance in zip(curve.examples["id"], curve.examples["distance"], strict=True):
            known[name] = min(distance, known.get(name, distance))
    return nearest


def _judge(judge: nn.Module, batch: Batch, classes: int, split: Split) -> nn.Module:
    """Return the second network as a classifier; raises InputError if its classes differ."""
    weight = next(judge.parameters(), batch.x)
    judging = as_classifier(judge, batch.x[:1].to(weight.device, weight.dtype), None, Classes.seen_in(split.labels))
    with torch.no_grad():
        width = judging(batch.x[:1].to(weight.device, weight.dtype)).shape[1]
    if width != classes:
        raise InputError(f"The judge has {width} classes and the network {classes}: give a judge of the same data.")
    return judging


def write_explained(explained: Explained, folder: Path, figures: Sequence[Format] = (), mark: str = "") -> None:
    """Write explanation.json, the arrays, one JSON file with PNG cells per grid, and the grids in these formats.

    `mark` is a hash of what the explanations depend on.
    """
    listed, arrays = list[dict[str, str]](), dict[str, torch.Tensor]()
    for name, explanation in explained.explanations.items():
        arrays |= {
            f"{name}/{key}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in explanation.arrays.items()
        }
        numbers = [number for number in explanation.finding.json()["numbers"]]
        about = " ".join([explanation.finding.summary, *explanation.finding.notes])
        for index, grid in enumerate(explanation.grids):
            scores = numbers if index == 0 else []
            listed += _write_grid(
                folder, name, grid, " ".join([grid.caption, about if index == 0 else ""]).strip(), scores
            )
            listed += write_figures(folder, grid, figures)
        if not explanation.grids:
            content = {
                "title": explanation.finding.title,
                "about": about,
                "columns": [],
                "rows": [],
                "numbers": numbers,
            }
            write_json(folder / f"{name}.json", content)
    write_tensors(folder / ARRAYS, arrays, {"model": explained.name})
    write_json(folder / INDEX, {**explained.json(), OF: mark, "arrays": ARRAYS, "figures": listed})


def write_figures(folder: Path, grid: Grid, figures: Sequence[Format]) -> list[dict[str, str]]:
    """Write a grid as a chart in each format, and return the entries of the list of figures."""
    listed = []
    for suffix in figures:
        file = f"{grid.name}.{suffix}"
        save_chart(pictures_chart(grid), folder / file)
        listed.append({"name": grid.name, "kind": suffix, "file": file, "caption": grid.caption, "alt": grid.alt})
    return listed


def _write_grid(folder: Path, name: str, grid: Grid, about: str, numbers: Sequence[Any]) -> list[dict[str, str]]:
    rows = []
    for i, (title, cells) in enumerate(zip(grid.rows, grid.cells, strict=True)):
        files = [f"{grid.name}-{i}-{j}.png" for j in range(len(cells))]
        for file, cell in zip(files, cells, strict=True):
            write_atomically(folder / file, _writer(png_of(cell)))
        rows.append({"name": title, "images": files})
    content = {"title": grid.title, "about": about, "columns": list(grid.columns), "rows": rows, "numbers": numbers}
    file = f"{grid.name}.json"
    write_json(folder / file, content)
    return [{"name": grid.name, "kind": "grid", "file": file, "caption": grid.caption, "alt": grid.alt}]


def _writer(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write
