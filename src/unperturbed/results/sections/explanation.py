"""Explanations as image grids, from the folder `explanation` of a run.

Each JSON file there describes a grid: `title`, `about`, `columns`, and `rows` of {`name`, `images`}, with a file name
in the same folder (or null) for each column; and optionally scores in `numbers`, as in a finding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.findings import Number
from unperturbed.reading import parse_json, read_bytes, read_small
from unperturbed.reports.document import Block, Paragraph, Part, Picture, Pictures, Section, Table, section
from unperturbed.reports.findings import number_text
from unperturbed.results.stored import StoredRun

FOLDER = "explanation"
INDEX = "explanation.json"
"""The file that lists the other files and holds all scores."""
COMPARED = (
    ("saliency-natural.json", "gradient", "image", "Input gradients"),
    ("prototypes.json", "prototype", "class mean", "Class prototypes"),
)
"""Grids that are shown side by side: the file, the column of each run, the column that all share, and the title."""
FEWEST = 2
"""The smallest number of explained runs to show side by side."""
LARGEST = 512 * 1024
"""The largest size of an image in bytes."""
MOST = 2_000
"""The largest number of images in a grid."""
PNG = b"\x89PNG\r\n\x1a\n"


def explanations(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each explained run."""
    parts = [Part(run.name if len(runs) > 1 else "", _blocks(run.folder / FOLDER)) for run in runs]
    if side := _side_by_side(runs):
        parts = [Part("Side by side", side), *parts]
    return section("Explanations", parts, "These maps show the parts of an input on which the prediction depends.")


def _side_by_side(runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    """Return one column of each run from grids of the same images, and the scores of all runs as a table."""
    explained = [run for run in runs if (run.folder / FOLDER / INDEX).is_file()]
    if len(explained) < FEWEST:
        return ()
    blocks = list[Block]()
    for file, column, reference, title in COMPARED:
        try:
            blocks += _column_of_each(explained, file, column, reference, title)
        except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            blocks.append(Paragraph(f"{title} side by side are left out: {error}."))
    try:
        blocks += _scores(explained)
    except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        blocks.append(Paragraph(f"The scores side by side are left out: {error}."))
    return tuple(blocks)


def _column_of_each(runs: Sequence[StoredRun], file: str, column: str, reference: str, title: str) -> list[Block]:
    """Return a grid with the reference column of the first run, and one column of each run.

    Empty without the file in all runs. Runs must show the same reference in each row.
    """
    folders = [run.folder / FOLDER for run in runs]
    if not all((folder / file).is_file() for folder in folders):
        return []
    grids = [_columns(folder, parse_json(read_small(folder / file), folder / file)) for folder in folders]
    shared = [row for row in grids[0] if all(row in grid for grid in grids)]
    shown = [row for row in shared if len({grid[row][reference].png for grid in grids}) == 1]
    if not shown:
        return [Paragraph(f"{title} side by side are left out: the runs were explained on different examples.")]
    rows = tuple(
        (
            name,
            (
                grids[0][number, name][reference],
                *(
                    Picture(grid[number, name][column].png, f"{name}, {column} of {run.name}")
                    for run, grid in zip(runs, grids, strict=True)
                ),
            ),
        )
        for number, name in shown
    )
    about = f"The column '{column}' of each run, for the same examples."
    return [Pictures(title, (reference, *(run.name for run in runs)), rows, about)]


def _columns(folder: Path, content: Mapping[str, Any]) -> dict[tuple[int, str], dict[str, Picture]]:
    """Return the pictures of a grid by number and name of the row, and by column."""
    columns = tuple(map(str, content["columns"]))
    _check_number(content, columns)
    return {
        (number, str(row["name"])): {
            column: picture
            for column, picture in zip(columns, _images(folder, row, columns), strict=True)
            if picture is not None
        }
        for number, row in enumerate(content["rows"])
    }


def _scores(runs: Sequence[StoredRun]) -> list[Block]:
    """Return the scores of all explanations as a table with a column for each run."""
    table: dict[str, dict[str, str]] = {}
    for run in runs:
        path = run.folder / FOLDER / INDEX
        content = parse_json(read_small(path), path)
        for finding in content["explanations"].values():
            for number in finding["numbers"]:
                table.setdefault(str(number["name"]), {})[run.name] = number_text(Number.of(number))
    rows = tuple((name, *(row.get(run.name, "") for run in runs)) for name, row in table.items())
    return [Table("Scores of the explanations", ("score", *(run.name for run in runs)), rows)] if rows else []


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
    _check_number(content, columns)
    rows = tuple((str(row["name"]), _images(folder, row, columns)) for row in content["rows"])
    about = str(content.get("about", ""))
    blocks: list[Block] = [Pictures(title, columns, rows, about) if rows else Paragraph(f"{title}: {about}")]
    numbers = [Number.of(number) for number in content.get("numbers", ())]
    if numbers:
        table = tuple((number.name, number_text(number)) for number in numbers)
        blocks.append(Table(f"{title}: scores", ("score", "value"), table))
    return blocks


def _check_number(content: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Raise InputError for a grid of more images than a page holds: one file may be named any number of times."""
    if len(content["rows"]) * max(1, len(columns)) > MOST:
        raise InputError(f"it holds {len(content['rows']):,} rows of {len(columns)} images, more than {MOST:,} in all")


def _images(folder: Path, row: Mapping[str, Any], columns: Sequence[str]) -> tuple[Picture | None, ...]:
    names = list(row["images"])
    if len(names) != len(columns):
        raise InputError(f"row {row['name']!r} has {len(names)} images for {len(columns)} columns")
    return tuple(
        None if name is None else Picture(_png(folder, str(name)), f"{row['name']}, {column}")
        for name, column in zip(names, columns, strict=True)
    )


def _png(folder: Path, name: str) -> bytes:
    """Return an image file of the folder; a link to a file elsewhere, which the page would make public, is refused."""
    path = folder / name
    if Path(name).name != name or path.resolve().parent != folder.resolve():
        raise InputError(f"the image {name!r} does not lie in {folder}")
    content = read_bytes(path, LARGEST)
    if not content.startswith(PNG):
        raise InputError(f"{name} is no PNG image of at most {LARGEST:,} bytes")
    return content
