"""A document as a model card in Markdown: the same content, with the data of each chart as a table."""

import re
from collections.abc import Sequence

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
    Pictures,
    Table,
    Tiles,
    data_table,
)

MOST_ROWS = 12
"""The largest number of rows of a chart's data in the card; more rows are thinned evenly."""
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def card_of(document: Document) -> str:
    """Return the Markdown of a document; names from data are text, never markup."""
    lines = [f"# {_text(document.title)}", "", *(f"- {_text(fact)}" for fact in document.facts)]
    for section in document.sections:
        lines += ["", f"## {_text(section.title)}"]
        lines += ["", _text(section.lead)] if section.lead else []
        for part in section.parts:
            lines += _part(part)
    return "\n".join(lines) + "\n"


def _part(part: Part) -> list[str]:
    lines = ["", f"### {_text(part.title)}"] if part.title else []
    for block in part.blocks:
        lines += ["", *_block(block)]
    return lines


def _block(block: Block) -> list[str]:
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
            return [f"**{_text(block.title)}**", "", fence, *block.text.rstrip("\n").split("\n"), fence]
        case Pictures():
            return [f"**{_text(block.title)}**: {len(block.rows)} rows of images are on the page. {_text(block.about)}"]
        case Figures():
            return [line for chart in block.charts for line in ("", *_chart(chart))][1:]
        case Definitions():
            return [f"- **{_text(term)}**: {_text(meaning)}" for term, meaning in block.terms]
    return _chart(block)


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
    """Return a text on one line, with markup of Markdown and HTML escaped."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)
