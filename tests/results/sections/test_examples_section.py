"""Adversarial examples as images, with words for those who do not see them."""

from pathlib import Path

from support.reported import HOSTILE, OTHER
from unperturbed.reports.document import Pictures
from unperturbed.results.sections.examples import examples
from unperturbed.results.stored import read_run


def test_every_image_says_what_it_shows(run: Path) -> None:
    section = examples([read_run(run, "a")])
    assert section is not None
    (grid,) = section.parts[0].blocks
    assert isinstance(grid, Pictures)
    texts = {name: [picture.text for picture in row if picture is not None] for name, row in grid.rows}
    assert [*texts] == ["original", "adversarial", "perturbation"]
    assert not any("{" in text for row in texts.values() for text in row)
    for title, text in zip(grid.columns, texts["adversarial"], strict=True):
        true, _, taken = title.partition(" → ")
        assert (
            {true, taken} == {HOSTILE, OTHER.replace("/", "\u2044")}
            and f"class {true}" in text
            and text.endswith(f"taken for {taken}")
        )
