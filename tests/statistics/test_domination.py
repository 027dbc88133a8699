"""A network is dominated by one at least as good in both accuracies and better in one."""

from hypothesis import given
from hypothesis import strategies as st

from unperturbed.findings import Interval
from unperturbed.statistics.domination import Point, mark_dominated


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point("", Interval(clean, 0, 1, 100), Interval(robust, 0, 1, 100)) for clean, robust in pairs]


def test_a_point_is_dominated_by_one_at_least_as_good_in_both_and_better_in_one() -> None:
    marked = mark_dominated(points((0.9, 0.5), (0.9, 0.4), (0.8, 0.5), (0.95, 0.3), (0.7, 0.6), (0.9, 0.5)))
    assert [point.dominated for point in marked] == [False, True, True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_what_is_left_is_a_front_and_nothing_better_was_marked(pairs: list[tuple[int, int]]) -> None:
    marked = mark_dominated(points(*((a / 4, b / 4) for a, b in pairs)))
    left = {pair for pair, point in zip(pairs, marked, strict=True) if not point.dominated}
    rising = sorted(left)
    assert rising and [b for _, b in rising] == sorted({b for _, b in left}, reverse=True), (
        "more of one is less of the other"
    )
    for pair, point in zip(pairs, marked, strict=True):
        assert point.dominated == any(a >= pair[0] and b >= pair[1] and (a, b) != pair for a, b in left)
