"""Suggestions for misspelt and incomplete names."""

import pytest

from unperturbed.errors import hint

SUITES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "pgd", "pgd-ce", "plus", "square", "standard")


@pytest.mark.parametrize(
    ("name", "names", "said"),
    [
        ("apgd", SUITES, "Did you mean 'apgd-ce' or 'apgd-dlr' or 'apgd-t'?"),
        ("resnet", ("mlp", "preact-resnet", "wide-resnet"), "Did you mean 'preact-resnet' or 'wide-resnet'?"),
        ("squrae", SUITES, "Did you mean 'square'?"),
        ("step", ("steps", "step_size", "sweep"), "Did you mean 'steps'?"),
        ("zebra", ("a", "b"), "Known are: a, b."),
        ("zebra", (), "There are none."),
        ("", ("a", "b"), "Known are: a, b."),
    ],
)
def test_a_suggestion_is_a_name_with_this_part_or_the_nearest(name: str, names: tuple[str, ...], said: str) -> None:
    assert hint(name, names) == said


def test_unlisted_names_are_proposed_but_not_listed() -> None:
    assert hint("zebra", ("a",), unlisted=("b", "square")) == "Known are: a."
    assert hint("squar", ("a",), unlisted=("b", "square")) == "Did you mean 'square'?"
