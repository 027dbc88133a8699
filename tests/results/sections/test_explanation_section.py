"""Explanations of several runs side by side, from their folders alone."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from unperturbed.reports.document import Paragraph, Pictures, Section, Table
from unperturbed.results.sections.explanation import explanations
from unperturbed.results.stored import read_run


def write(folder: Path, shades: dict[str, int], score: float) -> None:
    """Write a grid with one row of plain images, and a score."""
    folder.mkdir(parents=True)
    (folder.parent / "evaluation").mkdir()
    for column, shade in shades.items():
        Image.new("L", (4, 4), shade).save(folder / f"{column}.png")
    row = {"name": "class 3", "images": [f"{column}.png" for column in shades]}
    grid = {"title": "Saliency", "columns": list(shades), "rows": [row]}
    (folder / "saliency-natural.json").write_text(json.dumps(grid))
    number = {"name": "alignment", "value": score, "n": 9, "low": score - 0.1, "high": score + 0.1, "unit": ""}
    (folder / "explanation.json").write_text(json.dumps({"explanations": {"alignment": {"numbers": [number]}}}))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path / "a/explanation", {"image": 10, "gradient": 20}, 0.25)
    write(tmp_path / "b/explanation", {"image": 10, "gradient": 30}, 0.75)
    return tmp_path


def section_of(home: Path) -> Section:
    section = explanations([read_run(home / name, name) for name in "ab"])
    assert section is not None
    return section


def test_a_column_of_each_run_for_the_same_image_and_their_scores(home: Path) -> None:
    side, *parts = section_of(home).parts
    grid, table = side.blocks
    assert isinstance(grid, Pictures) and grid.columns == ("image", "a", "b")
    ((name, pictures),) = grid.rows
    files = [home / "a/explanation/image.png", *(home / run / "explanation/gradient.png" for run in "ab")]
    assert name == "class 3" and [picture.png for picture in pictures if picture] == [f.read_bytes() for f in files]
    assert isinstance(table, Table) and table.columns == ("score", "a", "b")
    ((score, first, second),) = table.rows
    assert (
        score == "alignment" and "0.25" in first and "0.75" in second and [part.title for part in parts] == ["a", "b"]
    )


def test_different_examples_are_not_compared(home: Path) -> None:
    Image.new("L", (4, 4), 11).save(home / "b/explanation/image.png")
    text, _ = section_of(home).parts[0].blocks
    assert isinstance(text, Paragraph) and "different examples" in text.text


def test_damaged_pieces_are_named(home: Path) -> None:
    (home / "b/explanation/gradient.png").write_bytes(b"no picture")
    (home / "a/explanation/explanation.json").write_text("{")
    texts = [block.text for block in section_of(home).parts[0].blocks if isinstance(block, Paragraph)]
    assert len(texts) == 2 and "gradient.png" in texts[0] and "scores" in texts[1]


def test_one_explained_run_has_nothing_side_by_side(home: Path) -> None:
    shutil.rmtree(home / "b/explanation")
    assert [part.title for part in section_of(home).parts] == ["a"]
