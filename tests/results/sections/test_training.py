"""How a run is repeated."""

import pytest

from unperturbed.cli.options import parse
from unperturbed.data.selection import Selection
from unperturbed.results.sections.training import selected


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("evaluation", ""),
        ("first-200", " --examples first:200"),
        ("L2-0.5-random-100-seed-3", " --examples random:100 --examples-seed 3"),
        ("stratified-50-seed-0-attack-seed-2", " --examples stratified:50 --examples-seed 0"),
        ("my-first-model", ""),
    ],
)
def test_the_folder_of_an_evaluation_says_which_examples(folder: str, options: str) -> None:
    assert selected(folder) == options


def test_every_selection_is_found_again() -> None:
    from unperturbed.cli.evaluate import parser
    from unperturbed.data.selection import parse as selection

    for chosen in (Selection("first", 7), Selection("random", 7, 3), Selection("stratified", 7, 3)):
        name = str(chosen).replace(":", "-").replace(" ", "-")
        given = parse(parser(), selected(name).split(), "run")
        assert selection(given.examples, given.examples_seed) == chosen
