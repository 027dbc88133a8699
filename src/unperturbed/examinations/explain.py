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
from unperturbed.evaluation.hashes import version
from unperturbed.examinations.explanations.base import Explainer, Explanation
from unperturbed.examinations.explanations.maps import captum
from unperturbed.examinations.preparation import prepare
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Progress, silent
from unperturbed.imports import OWN, follow
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.logits import Output
from unperturbed.reports.charts.pictures import Grid, pictures_chart, png_of
from unperturbed.reports.charts.style import save_chart
from unperturbed.runs.files import write_atomically, write_json
from unperturbed.runs.tensors import write_tensors
from unperturbed.threat import Threat
from unperturbed.types import Batch

FOLDER = "explanation"
INDEX = "explanation.json"
ARRAYS = "explanation.safetensors"
Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = ("svg", "png", "pdf")
TRAINING = 2000
"""Training examples for class means and spectra, at most."""


@dataclass(frozen=True, eq=False)
class Explained:
    """The explanations of one network.

    Attributes:
        name: of the network in tables and figures.
        threat: of adversarial inputs.
        examples: how many were explained.
        explanations: by name.
        warnings: notes of the explanations, and how the examples were selected.
        failed: the errors of explanations that raised one, by name.
    """

    name: str
    threat: Threat
    examples: int
    explanations: Mapping[str, Explanation]
    warnings: tuple[str, ...] = ()
    failed: Mapping[str, str] | None = None

    def json(self) -> dict[str, Any]:
        """Return plain values, without pictures and arrays."""
        findings = {name: each.finding.json() for name, each in self.explanations.items()}
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
        """Raise RunError where explanations failed."""
        if self.failed:
            texts = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
            raise RunError(f"Some explanations of {self.name} failed ({texts}); the others are complete.")


def find_explanations(names: Sequence[Explainer | str]) -> dict[str, Explainer]:
    """Return the explanations of these names, in order; "all" are those of the package.

    Raises:
        InputError: for an unknown name, with the nearest.
    """
    entries, found = listing("examinations/explanations"), dict[str, Any]()
    for name in names:
        if not isinstance(name, str):
            found[name.__name__] = name
        elif name == "all":
            found |= {entry.name: follow(entry.path, "explanation", OWN) for entry in entries.values()}
        elif name in entries:
            found[name] = follow(entries[name].path, "explanation", OWN)
        else:
            raise InputError(f"There is no explanation {name!r}. {hint(name, entries)}")
    return found


@checked(examples=COUNT, seed=SEED, batch_size=COUNT)
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
    out: str | Path | None = None,
    figures: Sequence[Format] = (),
    output: Output = None,
    progress: Progress = silent,
) -> Explained:
    """Explain a network: saliency, synthesised inputs, and scores that say how far to trust them.

    Args:
        model: returns logits, or what holds them; in float32 or float64.
        test: examples that it was not trained on: a split, a `Data` (its test split), a pair of arrays, a dataset.
        threat: of adversarial inputs; its box also holds what is synthesised.
        train: examples that it was trained on, for class means and the mean spectrum.
        explanations: names ("all": those of the package), or functions from a `Subject` to an `Explanation`.
        name: of the network in tables and figures.
        examples: of the test split: N, "first:N", "stratified:N" or "random:N"; None: all.
        seed: of random directions, starts and weights.
        batch_size: examples that the network sees at a time.
        judge: a second network, best a robust one, that says whether counterfactuals show the class they aim at.
        out: a folder for scores, arrays and pictures; None: nothing is written.
        figures: formats of each grid of pictures: "svg", "png", "pdf".
        output: which part of what the model returns are the logits: a place, a name, or a function of it.
        progress: called before each explanation.

    Raises:
        InputError: where model and data do not fit each other or the threat's box, for unknown names, and without
            Captum.
    """
    captum()
    asked, subject, notes = _subject(
        model, test, threat, train, explanations, name, examples, seed, batch_size, judge, output
    )
    done, failed = dict[str, Explanation](), dict[str, str]()
    for number, (title, explainer) in enumerate(asked.items()):
        progress(number, len(asked), f"{name}: {title}")
        try:
            done[title] = explainer(subject)
        except InputError:
            raise
        except Exception as error:  # a user's own may raise anything, and the others are to be kept
            failed[title] = f"{type(error).__name__}: {error}"
    warnings = [*notes, *(f"{each.finding.title}: {note}" for each in done.values() for note in each.finding.notes)]
    explained = Explained(name, threat, len(subject.test.x), done, tuple(warnings), failed)
    if out is not None:
        write_explained(explained, Path(out), figures)
    return explained


def _subject(
    model: nn.Module,
    test: Any,
    threat: Threat,
    train: Any,
    explanations: Sequence[Explainer | str],
    name: str,
    examples: int | str | None,
    seed: int,
    batch_size: int | Literal["auto"],
    judge: nn.Module | None,
    output: Output,
) -> tuple[dict[str, Explainer], Subject, tuple[str, ...]]:
    """Return the explanations, what they explain, and notes on the selection."""
    asked = find_explanations(explanations)
    prepared = prepare(name, model, test, threat, train, (examples, TRAINING), seed, batch_size, output)
    looked, subject = prepared.model, prepared.subject
    judging = None if judge is None else _judge(judge, subject.test, looked.classes, prepared.test)
    return asked, replace(subject, judge=judging), tuple(looked.warnings)


def _judge(judge: nn.Module, batch: Batch, classes: int, split: Split) -> nn.Module:
    """Return the second network, giving logits; raises InputError where its classes are others."""
    weight = next(judge.parameters(), batch.x)
    judging = as_classifier(judge, batch.x[:1].to(weight.device, weight.dtype), None, Classes.seen_in(split.labels))
    with torch.no_grad():
        width = judging(batch.x[:1].to(weight.device, weight.dtype)).shape[1]
    if width != classes:
        raise InputError(f"The judge has {width} classes and the network {classes}: give a judge of the same data.")
    return judging


def write_explained(explained: Explained, folder: Path, figures: Sequence[Format] = ()) -> None:
    """Write explanation.json, the arrays, a JSON file with PNG cells a grid, and the grids in these formats.

    Raises:
        InputError: for an unknown format.
    """
    if unknown := [each for each in figures if each not in FORMATS]:
        raise InputError(f"There is no figure format {unknown[0]!r}: the formats are {', '.join(FORMATS)}.")
    listed, arrays = list[dict[str, str]](), dict[str, torch.Tensor]()
    for name, each in explained.explanations.items():
        arrays |= {
            f"{name}/{key}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in each.arrays.items()
        }
        numbers = [number for number in each.finding.json()["numbers"]]
        about = " ".join([each.finding.summary, *each.finding.notes])
        for place, grid in enumerate(each.grids):
            scores = numbers if place == 0 else []
            listed += _write_grid(
                folder, name, grid, " ".join([grid.caption, about if place == 0 else ""]).strip(), scores
            )
            listed += write_figures(folder, grid, figures)
        if not each.grids:
            content = {"title": each.finding.title, "about": about, "columns": [], "rows": [], "numbers": numbers}
            write_json(folder / f"{name}.json", content)
    write_tensors(folder / ARRAYS, arrays, {"model": explained.name})
    write_json(folder / INDEX, {**explained.json(), "arrays": ARRAYS, "figures": listed})


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
