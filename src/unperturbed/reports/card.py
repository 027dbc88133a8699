"""A document as a model card in Markdown: the same content, with the data of each chart as a table."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence

from PIL import Image

from unperturbed.reports.characters import printable
from unperturbed.reports.document import (
    Alert,
    Block,
    Chart,
    Code,
    Definitions,
    Document,
    Figures,
    Paragraph,
    Part,
    Picture,
    Pictures,
    Table,
    Tiles,
    data_table,
)

MOST_ROWS = 12
"""The largest number of rows of a chart's data in the card; more rows are thinned evenly."""
SMALLEST = 72
"""Pixels of the shorter side of an image in the card; smaller ones are enlarged by whole factors."""
LARGEST = 512
"""Pixels of the longer side of images that are enlarged."""
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def card_of(document: Document, images: str | None = None) -> str:
    """Return the Markdown of a document; names from data are text, never markup.

    Args:
        document: the content.
        images: the folder of the files of `card_images`, relative to the card; None: grids of images are only named.
    """
    lines = [f"# {_text(document.title)}", "", *(f"- {_text(fact)}" for fact in document.facts)]
    for section in document.sections:
        lines += ["", f"## {_text(section.title)}"]
        lines += ["", _text(section.lead)] if section.lead else []
        for part in section.parts:
            lines += _part(part, images)
    return "\n".join(lines) + "\n"


def card_images(document: Document) -> dict[str, bytes]:
    """Return the images of a document by the names of their files; equal images share one."""
    return {_file(picture): _enlarged(picture.png) for picture in _pictures(document)}


def _pictures(document: Document) -> Iterator[Picture]:
    blocks = (block for section in document.sections for part in section.parts for block in part.blocks)
    grids = (block for block in blocks if isinstance(block, Pictures))
    return (picture for grid in grids for _, row in grid.rows for picture in row if picture is not None)


def _file(picture: Picture) -> str:
    return f"{hashlib.sha256(picture.png).hexdigest()[:16]}.png"


def _enlarged(png: bytes) -> bytes:
    """Return a small image enlarged, since Markdown shows images in their own size; others, and damaged ones, as is."""
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))  # the first fields of a PNG file
    factor = SMALLEST // max(1, min(width, height))
    if factor < 2 or max(width, height) > LARGEST:
        return png
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.resize((width * factor, height * factor), Image.Resampling.NEAREST).save(file, "PNG")
    except (OSError, ValueError, SyntaxError):
        return png
    return file.getvalue()


def _part(part: Part, images: str | None) -> list[str]:
    lines = ["", f"### {_text(part.title)}"] if part.title else []
    for block in part.blocks:
        lines += ["", *_block(block, images)]
    return lines


def _block(block: Block, images: str | None) -> list[str]:
    match block:
        case Paragraph():
            return [_text(block.text)]
        case Alert():
            return [f"> **{_text(block.text)}**", *(f"> - {_text(point)}" for point in block.points)]
        case Tiles():
            return [
                f"- **{_text(tile.label)}**: {_text(tile.value)} ({_text(tile.interval)})"
                + (f" — **not to be believed**: {_text('; '.join(tile.doubts))}" if tile.doubts else "")
                for tile in block.tiles
            ]
        case Table():
            return [f"**{_text(block.title)}**", "", *markdown_table(block.columns, block.rows)]
        case Code():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
            return [f"**{_text(block.title)}**", "", fence, *printable(block.text).rstrip("\n").split("\n"), fence]
        case Pictures():
            return _grid(block, images)
        case Figures():
            return [line for chart in block.charts for line in ("", *_chart(chart))][1:]
        case Definitions():
            return [f"- **{_text(term)}**: {_text(meaning)}" for term, meaning in block.terms]
    return _chart(block)


def _grid(grid: Pictures, images: str | None) -> list[str]:
    """Return a grid of images as a table."""
    if images is None:
        return [f"**{_text(grid.title)}**: {len(grid.rows)} rows of images are on the page. {_text(grid.about)}"]

    def cell(picture: Picture | None) -> str:
        return "" if picture is None else f"![{_text(picture.text)}]({images}/{_file(picture)})"

    rows = [f"| {' | '.join([_text(name), *map(cell, pictures)])} |" for name, pictures in grid.rows]
    header = f"| {' | '.join(['', *map(_text, grid.columns)])} |"
    about = ["", _text(grid.about)] if grid.about else []
    return [f"**{_text(grid.title)}**", "", header, f"|{' --- |' * (len(grid.columns) + 1)}", *rows, *about]


def _chart(chart: Chart) -> list[str]:
    table = data_table(chart)
    return [f"**{_text(chart.title)}**: {_text(chart.text)}", "", *markdown_table(table.columns, _thinned(table.rows))]


def _thinned(rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    if len(rows) <= MOST_ROWS:
        return rows
    return [rows[round(k * (len(rows) - 1) / (MOST_ROWS - 1))] for k in range(MOST_ROWS)]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; its cells are text, never markup."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_text, cells))} |"

    return [line(columns), f"|{' --- |' * len(columns)}", *map(line, rows)]


def _text(text: str) -> str:
    """Return a text on one line, with control characters and markup of Markdown and HTML escaped."""
    plain = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)
