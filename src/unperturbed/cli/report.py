"""Write one page on trained runs, from the results in their folders: accuracies, curves, audit, diagnosis, examples."""

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, say
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("report", str(__doc__))
    command_parser.add_argument("runs", type=str, nargs="*", help="run folders; several are compared")
    command_parser.add_argument(
        "--out",
        type=str | None,
        metavar="FILE",
        help="the page (default: report.html in the run folder, or above several)",
    )
    command_parser.add_argument(
        "--card", type=str | None, metavar="FILE", help="also write the content as a model card in Markdown"
    )
    command_parser.add_argument(
        "--figures", type=str | None, metavar="FOLDER", help="also write each chart as SVG, PDF and PNG"
    )
    return command_parser


def run(parsed: Parsed) -> Result:
    """Write the page and the other requested files."""
    from unperturbed.results.report import report

    written = report(parsed.runs, parsed.out, card=parsed.card, figures=parsed.figures)
    for text in written.damaged:
        say(text, "warning")
    value = {
        "page": str(written.page),
        "card": None if written.card is None else str(written.card),
        "figures": [str(path) for path in written.figures],
        "sections": [section.title for section in written.document.sections],
        "damaged": list(written.damaged),
    }
    views = [f"Report: {written.page}"]
    views += [] if written.card is None else [f"Model card: {written.card}"]
    views += [] if parsed.figures is None else [f"Figures: {parsed.figures} ({len(written.figures)} files)"]
    return Result(value, views)
