"""Explain the networks of several run folders side by side, on the same examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from unperturbed.checks import SEED, checked
from unperturbed.data.selection import Selection, parse
from unperturbed.data.split import select
from unperturbed.errors import InputError
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.hashes import data_hash, weights_hash
from unperturbed.evaluation.stored import read_distances
from unperturbed.examinations.explain import FOLDER, Explained, Format, explain, write_figures
from unperturbed.examinations.explanations.base import Explainer, grid
from unperturbed.examinations.several import Candidate, check_comparable, common_threat, names_of
from unperturbed.findings import Number, Progress, Shown, silent
from unperturbed.imports import Trust
from unperturbed.runs.files import write_json
from unperturbed.statistics.per_example import average
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.training.run import Run
from unperturbed.types import Inputs

SIDE = "side-by-side"


@dataclass(frozen=True, eq=False, repr=False)
class Explanations(Shown):
    """The explanations of several networks on the same examples.

    Attributes:
        explained: of each network.
        folders: of each network's files.
        threat: of adversarial inputs, the same for all.
        side: the folder of the pictures side by side; None for one network, or without pictures.
        differences: of each score, the first network minus each other one, by score and network; paired over examples.
    """

    explained: tuple[Explained, ...]
    folders: tuple[Path, ...]
    threat: Threat
    side: Path | None
    differences: Mapping[str, Mapping[str, Number]]

    def __str__(self) -> str:
        """Return each network with its folder."""
        networks = zip(self.explained, self.folders, strict=True)
        return "; ".join(f"{network.name}, {network.examples} examples: {folder}" for network, folder in networks)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "threat": str(self.threat),
            "models": [network.json() for network in self.explained],
            "folders": [str(folder) for folder in self.folders],
            "side_by_side": None if self.side is None else str(self.side),
            "differences": _plain(self.differences),
        }


@published(results_and_weights)
@checked(seed=SEED)
def explain_runs(
    runs: Sequence[Path | str],
    threat: Threat | None = None,
    *,
    explanations: Sequence[Explainer | str] = ("all",),
    examples: int | str = 200,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    judge: Path | str | None = None,
    out: Path | str | None = None,
    figures: Sequence[Format] = (),
    trust: bool = False,
    progress: Progress = silent,
) -> Explanations:
    """Explain the networks of run folders on the same examples; each folder gets a folder `explanation`.

    Args:
        runs: run folders of the same data.
        threat: of adversarial inputs, for all runs; None: the largest threat of the runs.
        explanations: names ("all": those of the package), functions from a `Subject` to an `Explanation`, or their
            import paths, package.module:Name.
        examples: test examples: N, "first:N", "stratified:N" or "random:N".
        seed: of random directions, starts and weights.
        batch_size: examples in a batch.
        judge: the run folder of a second network, preferably a robust one, that judges counterfactuals.
        out: the folder of the pictures side by side; None: one next to the runs.
        figures: formats of each grid of pictures: "svg", "png", "pdf".
        trust: whether import paths in the folders are followed.
        progress: called before each explanation.

    Raises:
        InputError: if the runs cannot be compared.
        RunError: if explanations failed; the others are written.
    """
    if len({Path(run).resolve() for run in runs}) < len(runs) or not runs:
        raise InputError(f"The runs are {', '.join(map(str, runs)) or 'none'}: name one or more, each once.")
    candidates = []
    for run in (Run.open(run, trust) for run in runs):
        test = run.data.test or run.data.train
        candidates.append(Candidate(run.folder, run.model, run.data, test, run.trained_on, run.threat, run.record))
    explained_runs = explain_all(
        candidates, threat, explanations, parse(examples, None), seed, batch_size, judge, out, figures, trust, progress
    )
    for explained in explained_runs.explained:
        explained.raise_failures()
    return explained_runs


def explain_all(
    candidates: Sequence[Candidate],
    threat: Threat | None,
    explanations: Sequence[Explainer | str],
    examples: Selection,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    judge: Path | str | None = None,
    out: Path | str | None = None,
    figures: Sequence[Format] = (),
    trust: bool | Trust = False,
    progress: Progress = silent,
) -> Explanations:
    """Explain each candidate and draw their maps side by side; see `explain_runs`."""
    check_comparable(candidates, threat is not None, examples)
    size = threat or common_threat(candidates)
    judging = None if judge is None else Run.open(judge, trust).model
    explained, folders = list[Explained](), list[Path]()
    for number, (candidate, name) in enumerate(zip(candidates, names_of(candidates), strict=True)):

        def report(finished: float, total: float, text: str, before: int = number) -> None:
            progress(before + finished / total, len(candidates), text)

        folders.append(candidate.folder / FOLDER)
        curves, notes = stored_curves(candidate)
        network = explain(
            candidate.model,
            candidate.test,
            size,
            train=candidate.train,
            explanations=explanations,
            name=name,
            examples=str(examples),
            seed=seed,
            batch_size=batch_size,
            judge=judging,
            curves=curves,
            out=folders[-1],
            figures=figures,
            progress=report,
        )
        explained.append(replace(network, warnings=(*network.warnings, *notes)))
    home = Path(out) if out is not None else candidates[0].folder.parent / FOLDER
    differences = paired_differences(explained)
    side = _side_by_side(explained, differences, home, figures) if len(explained) > 1 else None
    return Explanations(tuple(explained), tuple(folders), size, side, differences)


def stored_curves(candidate: Candidate) -> tuple[tuple[Distances, ...], tuple[str, ...]]:
    """Return the curves in a run folder of this network and test split, and sentences on damaged ones."""
    curves, notes, weights = list[Distances](), list[str](), weights_hash(candidate.model)
    names = candidate.test.names()
    for path in sorted((candidate.folder / "evaluation").rglob("curve-*.json")):
        try:
            curve = read_distances(path)
        except InputError as error:
            notes.append(f"{error} It is not used here.")
            continue
        rows = torch.isin(names, torch.tensor(curve.examples["id"])).nonzero()[:, 0]
        same_data = len(rows) > 0 and curve.environment.get("data") == data_hash(select(candidate.test, rows))
        if same_data and curve.environment.get("weights") == weights:
            curves.append(curve)
    return tuple(curves), tuple(notes)


def paired_differences(explained: Sequence[Explained]) -> dict[str, dict[str, Number]]:
    """Return the mean difference of each score, the first network minus each other one, with its 95% interval.

    Paired over the examples on which both networks have a finite score; by score and name of the other network.
    """
    differences = dict[str, dict[str, Number]]()
    if not explained:
        return differences
    first, *others = [_values(network) for network in explained]
    for name, values in first.items():
        for network, other in zip(explained[1:], others, strict=True):
            shared = sorted(values.keys() & other.get(name, {}).keys())
            for number in average(name, [values[id_] - other[name][id_] for id_ in shared]):
                differences.setdefault(name, {})[network.name] = number
    return differences


def _values(explained: Explained) -> dict[str, dict[int, float]]:
    """Return the value of each example, by score and id."""
    return {
        values.name: dict(zip(values.ids, values.values, strict=True))
        for explanation in explained.explanations.values()
        for values in explanation.finding.distributions
    }


def _plain(differences: Mapping[str, Mapping[str, Number]]) -> dict[str, dict[str, Any]]:
    return {name: {network: asdict(number) for network, number in row.items()} for name, row in differences.items()}


def _side_by_side(
    explained: Sequence[Explained],
    differences: Mapping[str, Mapping[str, Number]],
    home: Path,
    figures: Sequence[Format],
) -> Path | None:
    """Write the gradients and prototypes of the networks as columns of one grid each, their scores and differences."""
    models = [network.name for network in explained]
    content = {"scores": _scores(explained), "differences": _plain(differences), "models": models}
    write_json(home / f"{SIDE}.json", content)
    drawn = False
    for title, explanation, array, signed in (
        ("Input gradients", "saliency", "natural_gradient", True),
        ("Class prototypes", "prototypes", "prototype", False),
    ):
        if any(explanation not in network.explanations for network in explained):
            continue
        arrays = [network.explanations[explanation].arrays for network in explained]
        if any(array not in network for network in arrays):
            continue
        columns: dict[str, tuple[Inputs, bool]] = {}
        if signed:
            columns["image"] = (arrays[0]["natural_image"], False)
        columns |= {network.name: (part[array], signed) for network, part in zip(explained, arrays, strict=True)}
        rows = [str(k + 1) for k in range(len(arrays[0][array]))]
        caption = f"{title} of each network on the same examples; a column a network."
        for pictures in grid(f"{SIDE}-{explanation}", title, caption, rows, columns):
            write_figures(home, pictures, figures or ("png",))
            drawn = True
    return home if drawn else None


def _scores(explained: Sequence[Explained]) -> Mapping[str, Any]:
    """Return each score with its interval by network."""
    table: dict[str, dict[str, Any]] = {}
    for network in explained:
        for explanation in network.explanations.values():
            for number in explanation.finding.numbers:
                row = table.setdefault(number.name, {})
                row[network.name] = {"value": number.value, "low": number.low, "high": number.high, "n": number.n}
    return table
