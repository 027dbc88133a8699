"""The tutorials as Jupyter notebooks, executed: their Python becomes cells, and their text is kept."""

import re
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parent / "tutorials"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"^<!--.*?-->\n", re.DOTALL | re.MULTILINE)


def notebook(page: Path) -> Any:
    """Return a page as a notebook without outputs."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    text, cells, end = HIDDEN.sub("", page.read_text()), [], 0
    for match in BLOCK.finditer(text):
        cells += [new_markdown_cell(text[end : match.start()].strip()), new_code_cell(match[1].strip())]
        end = match.end()
    cells.append(new_markdown_cell(text[end:].strip()))
    return new_notebook(cells=[cell for cell in cells if cell.source])


def executed(page: Path, folder: Path) -> Any:
    """Run a page as a notebook in a folder, and return it with its outputs; an error in a cell is raised."""
    from nbclient import NotebookClient

    book = notebook(page)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=600, startup_timeout=300, kernel_name="python3", resources=resources).execute()
    return book


def write(app: Any, error: Exception | None) -> None:
    """Write the executed notebooks beside the pages of the tutorials."""
    import nbformat

    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir) / "tutorials"
    for page in sorted(TUTORIALS.glob("*.md")):
        nbformat.write(executed(page, out), out / f"{page.stem}.ipynb")
