"""Finished explanations in files, which an interrupted call reads when it is repeated; removal of old ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unperturbed.examinations.explanations.base import Explanation
from unperturbed.findings import Finding
from unperturbed.reports.charts.pictures import Grid
from unperturbed.runs.files import slug
from unperturbed.runs.tensors import DamagedError, read_tensors, write_tensors
from unperturbed.runs.verify import read_object

INDEX = "explanation.json"
"""The file in the folder of the explanations that lists the others."""
OF = "of"
"""The entry of the index with a hash of what the explanations depend on."""
SUFFIXES = (".json", ".png", ".svg", ".pdf")
FOLDER = "finished"
"""The folder of the files, in that of the explanations."""


@dataclass(frozen=True)
class KeptExplanations:
    """The finished explanations of one network, one file each.

    Attributes:
        folder: of the explanations; None: nothing is kept.
        identity: what the explanations depend on, by name.
    """

    folder: Path | None
    identity: Mapping[str, Any]

    def read(self, name: str, source: str) -> Explanation | None:
        """Return an explanation that the same call with the same code has written.

        None for one of another network, data, settings or code, from a damaged file, and where the code is unknown.
        """
        if self.folder is None or not source or not self._path(self.folder, name).exists():
            return None
        try:
            tensors, about = read_tensors(self._path(self.folder, name))
        except DamagedError:
            return None
        if about is None or (about.get("of"), about.get("source")) != (dict(self.identity), source):
            return None
        try:
            return _explanation(tensors, about)
        except (TypeError, ValueError, LookupError, AttributeError):  # its hash is right, but it is none of ours
            return None

    def write(self, name: str, source: str, explanation: Explanation) -> None:
        """Keep a finished explanation; with code that is not known, none."""
        if self.folder is None or not source:
            return
        tensors = {
            f"array {title}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for title, value in explanation.arrays.items()
        }
        grids = list[dict[str, Any]]()
        for number, grid in enumerate(explanation.grids):
            tensors |= {
                _cell(number, i, j): torch.from_numpy(values).contiguous().clone()
                for i, row in enumerate(grid.cells)
                for j, (values, _) in enumerate(row)
            }
            names = {"name": grid.name, "title": grid.title, "caption": grid.caption}
            signed = [[signed for _, signed in row] for row in grid.cells]
            grids.append({**names, "rows": list(grid.rows), "columns": list(grid.columns), "signed": signed})
        about = {
            "of": dict(self.identity),
            "source": source,
            "finding": explanation.finding.json(),
            "grids": grids,
            "arrays": list(explanation.arrays),
        }
        write_tensors(self._path(self.folder, name), tensors, about)

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / FOLDER / f"{slug(name)}.safetensors"


def _explanation(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> Explanation:
    """Return an explanation from the content of its file; raises TypeError, LookupError and their like for others."""
    grids = tuple(
        Grid(
            grid["name"],
            grid["title"],
            grid["caption"],
            tuple(grid["rows"]),
            tuple(grid["columns"]),
            tuple(
                tuple((tensors[_cell(number, i, j)].numpy(), signed) for j, signed in enumerate(row))
                for i, row in enumerate(grid["signed"])
            ),
        )
        for number, grid in enumerate(about["grids"])
    )
    arrays = {title: tensors[f"array {title}"] for title in about["arrays"]}
    return Explanation(Finding.of(about["finding"]), grids, arrays)


def _cell(grid: int, row: int, column: int) -> str:
    return f"picture {grid} {row} {column}"


def remove_others(folder: Path, mark: str) -> None:
    """Remove the files that the index of a folder names, if its explanations are of something else than `mark`.

    Otherwise a report would show pictures of an earlier network, or of other examples, beside the new ones. Files that
    the index does not name stay.
    """
    index = read_object(folder / INDEX)
    if not index or index.get(OF) == mark:
        return
    figures, explanations = index.get("figures"), index.get("explanations")
    listed = [entry.get("file") for entry in figures if isinstance(entry, dict)] if isinstance(figures, list) else []
    listed += [f"{name}.json" for name in explanations] if isinstance(explanations, dict) else []
    for file in _names(listed):
        rows = read_object(folder / file).get("rows") if file.endswith(".json") else None
        images = [row.get("images") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        for name in [file, *_names([name for names in images if isinstance(names, list) for name in names])]:
            (folder / name).unlink(missing_ok=True)
    (folder / INDEX).unlink(missing_ok=True)


def _names(values: Sequence[object]) -> list[str]:
    """Return the names of files of the kinds that are written here, without any that lead out of the folder."""
    return [
        name for name in values if isinstance(name, str) and Path(name).name == name and Path(name).suffix in SUFFIXES
    ]
