"""Explanations as image grids, from the folder `explanation` of a run.

Each JSON file there describes a grid: `title`, `about`, `columns`, and `rows` of {`name`, `images`}, with a file name
in the same folder (or null) for each column; and optionally scores in `numbers`, as in a finding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.findings import Number
from unperturbed.reading import parse_json, read_small
from unperturbed.reports.document import Block, Paragraph, Part, Picture, Pictures, Section, Table, section
from unperturbed.reports.findings import number_text
from unperturbed.results.stored import StoredRun

FOLDER = "explanation"
INDEX = "explanation.json"
"""The file that lists the other files and holds all scores."""
LARGEST = 512 * 1024
"""The largest size of an image in bytes."""
PNG = b"\x89PNG\r\n\x1a\n"


def explanations(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each explained run."""
    parts = [Part(run.name if len(runs) > 1 else "", _blocks(run.folder / FOLDER)) for run in runs]
    return section("Explanations", parts, "These maps show the parts of an input on which the prediction depends.")


def _blocks(folder: Path) -> tuple[Block, ...]:
    blocks = list[Block]()
    for path in sorted(path for path in folder.glob("*.json") if path.name != INDEX):
        try:
            blocks += _grid(folder, parse_json(read_small(path), path))
        except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            blocks.append(Paragraph(f"{path.name} is left out: {error}."))
    return tuple(blocks)


def _grid(folder: Path, content: Mapping[str, Any]) -> list[Block]:
    title, columns = str(content["title"]), tuple(map(str, content["columns"]))
    rows = tuple((str(row["name"]), _images(folder, row, columns)) for row in content["rows"])
    about = str(content.get("about", ""))
    blocks: list[Block] = [Pictures(title, columns, rows, about) if rows else Paragraph(f"{title}: {about}")]
    numbers = [Number(**number) for number in content.get("numbers", ())]
    if numbers:
        table = tuple((number.name, number_text(number)) for number in numbers)
        blocks.append(Table(f"{title}: scores", ("score", "value"), table))
    return blocks


def _images(folder: Path, row: Mapping[str, Any], columns: Sequence[str]) -> tuple[Picture | None, ...]:
    names = list(row["images"])
    if len(names) != len(columns):
        raise InputError(f"row {row['name']!r} has {len(names)} images for {len(columns)} columns")
    return tuple(
        None if name is None else Picture(_png(folder, str(name)), f"{row['name']}, {column}")
        for name, column in zip(names, columns, strict=True)
    )


def _png(folder: Path, name: str) -> bytes:
    """Return an image file of the folder."""
    if Path(name).name != name:
        raise InputError(f"the image {name!r} does not lie in {folder}")
    content = (folder / name).read_bytes()
    if len(content) > LARGEST or not content.startswith(PNG):
        raise InputError(f"{name} is no PNG image of at most {LARGEST:,} bytes")
    return content
