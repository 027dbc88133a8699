"""The report of runs: one self-contained page, a model card, and figures for papers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import Shown
from unperturbed.reports.card import card_images, card_of
from unperturbed.reports.charts.plots import draw
from unperturbed.reports.charts.style import FORMATS, save_chart
from unperturbed.reports.document import Alert, Document, Part, Section
from unperturbed.reports.page.render import page_of
from unperturbed.results.sections.audit import audit
from unperturbed.results.sections.certified import certified
from unperturbed.results.sections.classes import classes
from unperturbed.results.sections.comparison import comparison
from unperturbed.results.sections.corruptions import corruptions
from unperturbed.results.sections.curve import accuracy_curve
from unperturbed.results.sections.diagnosis import diagnosis
from unperturbed.results.sections.examples import examples
from unperturbed.results.sections.explanation import explanations
from unperturbed.results.sections.glossary import glossary
from unperturbed.results.sections.headline import headline
from unperturbed.results.sections.learning import learning
from unperturbed.results.sections.missing import missing
from unperturbed.results.sections.random_perturbations import random_perturbations
from unperturbed.results.sections.training import training
from unperturbed.results.sections.transfer import transfer
from unperturbed.results.sections.union import unions
from unperturbed.results.stored import StoredRun, read_run
from unperturbed.runs import write_atomically, write_text

PAGE = "report.html"
Make = Callable[[Sequence[StoredRun]], Section | None]
"""A section of runs; None without results."""
SECTIONS: tuple[Make, ...] = (
    headline,
    comparison,
    unions,
    accuracy_curve,
    certified,
    random_perturbations,
    corruptions,
    transfer,
    classes,
    examples,
    audit,
    training,
    learning,
    diagnosis,
    explanations,
    missing,
)
"""The sections in the order of the page; the glossary comes last."""


@dataclass(frozen=True, eq=False, repr=False)
class Report(Shown):
    """A written report.

    Attributes:
        page: the HTML file.
        document: its content.
        card: the Markdown file, if requested.
        figures: files of the charts, if requested.
        damaged: sentences on unreadable pieces of the runs.
    """

    page: Path
    document: Document
    card: Path | None
    figures: tuple[Path, ...]
    damaged: tuple[str, ...]

    def __str__(self) -> str:
        """Return the page, the number of its sections, and what could not be read."""
        damaged = f"; {len(self.damaged)} pieces could not be read" if self.damaged else ""
        return f"{self.page}: {len(self.document.sections)} sections{damaged}"


@checked()
def report(
    runs: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    card: Path | str | None = None,
    figures: Path | str | None = None,
) -> Report:
    """Write a page on the stored results of run folders, without new measurements.

    Results that are missing or damaged are named on the page. The page is one file that works offline.

    Args:
        runs: a run folder, or several for a comparison.
        out: the HTML file; by default `report.html` in the run folder, or in the common folder of the runs.
        card: a Markdown file for the same content; its images go into the folder NAME-images next to it.
        figures: a folder for each chart as SVG, PDF and PNG.

    Raises:
        InputError: without runs, for a folder without a run, and for a folder named twice.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise InputError("There is no run to report: give one run folder or more, which `unperturbed train` makes.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"A run is named twice in {', '.join(map(str, folders))}: name each run once.")
    stored = [read_run(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    page = Path(out) if out is not None else _home(folders) / PAGE
    if page.is_dir():
        raise InputError(f"{page} is a folder: give the name of an HTML file, such as {page / PAGE}.")
    document = document_of(stored)
    paths = () if figures is None else write_figures(document, Path(figures))
    if card is not None:
        write_card(document, Path(card))
    write_text(page, page_of(document))
    damaged = tuple(text for run in stored for text in run.damaged)
    return Report(page, document, None if card is None else Path(card), paths, damaged)


def document_of(runs: Sequence[StoredRun], sections: Sequence[Make] = SECTIONS) -> Document:
    """Return the report of runs. A section without results is left out; one that fails is replaced by its error."""
    made = [part for function in sections if (part := _section(function, runs)) is not None]
    title = f"Robustness of {runs[0].name}" if len(runs) == 1 else f"Robustness of {len(runs)} networks"
    return Document(title, tuple(_facts(runs)), (*made, glossary()))


def _section(function: Make, runs: Sequence[StoredRun]) -> Section | None:
    try:
        return function(runs)
    except Exception as error:  # values of a stranger's folder, whose checksums are right, may be of any kind
        text = f"The stored values do not fit ({type(error).__name__}: {error}): measure again."
        return Section(f"Left out: {function.__name__.replace('_', ' ')}", (Part("", (Alert(text),)),))


def write_card(document: Document, path: Path) -> None:
    """Write a document as Markdown, and its images into the folder NAME-images next to it."""
    folder = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', path.stem)}-images"
    for name, png in card_images(document).items():
        write_atomically(path.parent / folder / name, lambda file, png=png: file.write_bytes(png))  # type: ignore[misc]
    write_text(path, card_of(document, folder))


def write_figures(document: Document, folder: Path) -> tuple[Path, ...]:
    """Write each chart of a document as SVG, PDF and PNG, and return the files."""
    paths, names = list[Path](), set[str]()
    for part, chart in document.charts():
        name = base = _slug(f"{part} {chart.title}")
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.add(name)
        figure = draw(chart)
        for suffix in FORMATS:
            save_chart(figure, folder / f"{name}{suffix}")
            paths.append(folder / f"{name}{suffix}")
    return tuple(paths)


def _facts(runs: Sequence[StoredRun]) -> list[str]:
    facts = []
    for run in runs:
        record = run.record
        if record is None:
            facts.append(f"{run.name}: what was trained is not known, since config.yaml is missing or damaged.")
            continue
        method = record.method.get("class_path", "") if not isinstance(record.method, str) and record.method else ""
        name = str(record.method if isinstance(record.method, str) else method).rpartition(".")[2]
        model = record.model.class_path if record.model is not None else ""
        data = record.trained_on.name if record.trained_on is not None else record.data or ""
        words = [f"{noun} {text}" for noun, text in (("data", data), ("model", model), ("method", name)) if text]
        facts.append(f"{run.name}: {', '.join([*words, f'threat {record.threat}'])}.")
    return [*facts, f"Written by unperturbed {version('unperturbed')} from the results in the run folders."]


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the folders' last names, or their paths if the names are not unique."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _home(folders: Sequence[Path]) -> Path:
    return folders[0] if len(folders) == 1 else folders[0].resolve().parent


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "figure"
