"""A document as one self-contained page of HTML: it makes no requests, and escapes names from data."""

import base64
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from unperturbed.reports.characters import printable
from unperturbed.reports.document import Block, Document, data_table
from unperturbed.reports.page.plots import plot
from unperturbed.runs import finite


def page_of(document: Document) -> str:
    """Return the page of a document, complete with style, scripts and the library that draws its figures."""
    folder = resources.files(__package__)
    files = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "page.css", "page.js")}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters |= {"kind": _kind, "data_table": data_table, "image": _image}
    figures = {f"figure-{number}": plot(chart) for number, (_, chart) in enumerate(document.charts())}
    return environment.from_string(files["report.html"]).render(
        document=document,
        style=Markup(files["page.css"]),
        script=Markup(files["page.js"]),
        library=Markup(get_plotlyjs()) if figures else "",
        figures=_json(figures),
    )


def _finalize(value: Any) -> Any:
    """Return a value as the page shows it: a text without control characters; markup of this package as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kind(block: Block) -> str:
    return type(block).__name__


def _image(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _json(value: Mapping[str, Any]) -> Markup:
    """Return JSON for a script element, without characters that could end it."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
