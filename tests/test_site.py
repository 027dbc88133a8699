"""The documentation site: its pages lead to each other, and docstrings are read as they are meant."""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import unperturbed as un
from unperturbed.cli.main import COMMANDS, main

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS))
pages = import_module("site_pages")
notebooks = import_module("site_notebooks")


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"^(?:[\w ]+ <)?([\w/]+)>?$", (DOCS / "index.md").read_text(), re.MULTILINE)
    written = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert {name for name in written if not name.startswith("generated/")} - {"index"} == {
        name for name in listed if not name.startswith("generated/")
    }


@pytest.mark.slow
def test_the_reference_has_every_command_and_every_public_name(tmp_path: Path) -> None:
    pages.write(tmp_path)
    commands = (tmp_path / "commands.md").read_text()
    assert all(f"\n## {command}\n" in commands for command in COMMANDS) and "--fail-on" in commands
    listed = {name for page in tmp_path.glob("*.md") for name in re.findall(r"^## (\w+)$", page.read_text(), re.M)}
    assert {name for name in un.__all__ if name[0] != "_"} - set(pages.PACKAGES) <= listed
    assert {*dir(un.methods), *dir(un.maximise)} <= listed


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("index", "../README.md", "generated/readme.md"),
        ("evaluating", "defences.md", "defences.md"),
        ("tutorials/tables", "../evaluating.md#any-model-any-data", "../evaluating.md#any-model-any-data"),
        ("generated/readme", "docs/methods.md", "../methods.md"),
        ("generated/readme", "examples/tabular.py", "files.md"),
        ("generated/contributing", "README.md", "readme.md"),
        ("evaluating", "https://arxiv.org/abs/1802.00420", "https://arxiv.org/abs/1802.00420"),
    ],
)
def test_a_link_of_the_repository_leads_to_the_page_of_the_site(page: str, link: str, on_the_site: str) -> None:
    source = [f"See [this]({link}) and [that](#here)."]
    pages.links_within_the_site(SimpleNamespace(srcdir=DOCS), page, source)
    assert source == [f"See [this]({on_the_site}) and [that](#here)."]


def test_signs_of_a_docstring_are_no_markup() -> None:
    lines = ["The norm |x|_2 of `a * b`, times c * d_.", "    x: **kept**"]
    pages.plain_docstring(None, "function", "f", None, None, lines)
    assert lines == [r"The norm \|x\|_2 of `a * b`, times c \* d\_.", "    x: **kept**"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_the_python_of_a_tutorial_works(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its hidden checks, each page in a new folder."""
    monkeypatch.chdir(tmp_path)
    examples = list(Sybil([PythonCodeBlockParser()]).parse(page).examples())
    assert len(examples) >= 3
    for example in examples:
        example.evaluate()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one epoch and a shorter suite."""
    monkeypatch.chdir(tmp_path)
    inputs, labels = np.random.default_rng(0).random((40, 6), dtype=np.float32), np.arange(40) % 2
    np.savez("measurements.npz", x_train=inputs, y_train=labels, x_test=inputs[::-1], y_test=labels[::-1])
    lines = [line for line in page.read_text().splitlines() if line.startswith("unperturbed ")]
    assert len(lines) >= 2
    for line in lines:
        words = line.replace("--epochs 5", "--epochs 1").replace("--suite standard", "--suite pgd").split()
        assert main(words[1:]) == 0, line


def test_a_tutorial_becomes_a_notebook_with_all_its_python() -> None:
    pytest.importorskip("nbformat", reason="the extra docs is not installed")
    page = DOCS / "tutorials/first_model.md"
    cells = notebooks.notebook(page).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert code == [block.strip() for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M)]
    assert not any("invisible" in cell.source for cell in cells)
