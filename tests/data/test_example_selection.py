"""Which N examples are used: the first ones only where they stand for the split."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unperturbed.data.selection import Selection, choose, parse, parse_record, positions
from unperturbed.data.split import array_split, select
from unperturbed.errors import InputError

SORTED = torch.arange(3).repeat_interleave(60)
SHUFFLED = SORTED[torch.randperm(180, generator=torch.Generator().manual_seed(0))]


def split(labels: torch.Tensor):  # type: ignore[no-untyped-def]
    return array_split(torch.arange(len(labels)).float()[:, None], labels)


def test_the_first_of_sorted_examples_are_replaced_by_a_draw_from_every_class() -> None:
    """The first 50 of these are all of one class, on which a constant network is right at 100%."""
    taken, how = choose(split(SORTED), parse(50), ("a", "b", "c"))
    assert str(how) == "stratified:50 seed 0" and sorted(torch.bincount(taken.labels).tolist()) == [16, 17, 17]
    assert torch.equal(taken.names(), taken.inputs(torch.arange(50)).flatten().long()), "names are still positions"
    assert torch.equal(taken.names(), taken.names().sort().values)
    assert len(taken.notes) == 1 and all(
        part in taken.notes[0] for part in ("first 50 of 180", "b, c", "stratified:50 seed 0", "first:50")
    )


def test_first_insists_and_says_which_classes_are_missing() -> None:
    taken, how = choose(split(SORTED), parse("first:50"), ("a", "b", "c"))
    assert str(how) == "first:50" and taken.names().tolist() == list(range(50))
    assert taken.notes == ("Among these 50 examples 2 classes are missing (b, c).",)


def test_shares_that_are_off_by_more_than_chance_are_drawn_anew_though_no_class_is_missing() -> None:
    labels = torch.cat([torch.tensor([0] * 80 + [1] * 10 + [2] * 10), torch.tensor([1] * 70 + [2] * 70)])
    taken, how = choose(split(labels), parse(100))
    assert how.how == "stratified" and "80 of class 0" in taken.notes[0]
    assert [abs(n - share) < 1 for n, share in zip(torch.bincount(taken.labels), (33.3, 33.3, 33.3), strict=True)]


def test_shuffled_examples_stay_the_first_ones() -> None:
    for count in (20, 50, 100, 179):
        taken, how = choose(split(SHUFFLED), parse(count))
        assert str(how) == f"first:{count}" and taken.names().tolist() == list(range(count)) and taken.notes == ()


def test_chance_alone_rarely_leads_to_a_draw() -> None:
    """At most 1 of 1,001 in the long run; 50 shuffles of 10 classes give more than 2 with probability 2e-5."""
    drawn = 0
    for seed in range(50):
        labels = torch.arange(10).repeat_interleave(100)[
            torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
        ]
        drawn += choose(split(labels), parse(100))[1].how != "first"
    assert drawn <= 2


def test_fewer_examples_than_classes_are_judged_by_their_shares() -> None:
    labels = torch.arange(100).repeat_interleave(10)
    taken, how = choose(split(labels), parse(20))
    assert how.how == "stratified" and len(taken.labels.unique()) == 20, "no class twice"
    assert taken.labels.float().mean() > 30, "classes with small numbers are not preferred"


def test_few_examples_of_few_are_drawn_anew_only_where_the_order_follows_the_classes() -> None:
    assert choose(split(torch.arange(3).repeat_interleave(10)), parse(3))[0].labels.tolist() == [0, 1, 2]
    mixed = torch.tensor([0, 0, 2, 1, 2, 0, 1, 1, 0, 2, 1, 2])
    taken, how = choose(split(mixed), parse(3), ("a", "b", "c"))
    assert str(how) == "first:3" and taken.notes == ("Among these 3 examples 1 class is missing (b).",)


def test_all_are_taken_where_there_are_no_more() -> None:
    taken, _ = choose(split(SORTED), parse(10**17))
    assert len(taken) == 180 and "only 180" in taken.notes[0]
    assert choose(split(SORTED), parse(180))[0].notes == ()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_a_stratified_draw_has_each_class_share_and_none_twice(sizes: list[int], data: st.DataObject) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    count = data.draw(st.integers(1, len(labels)))
    ids = positions(labels, Selection("stratified", count, data.draw(st.integers(0, 5))))
    assert len(ids.unique()) == count and torch.equal(ids, ids.sort().values)
    quota = torch.bincount(labels[ids], minlength=len(sizes))
    assert bool((quota <= torch.tensor(sizes)).all())
    if count >= len(sizes):
        assert bool((quota >= 1).all())
    share = torch.tensor(sizes) * count / len(labels)
    if count < len(sizes) or bool((share >= 1).all()):
        assert bool(((quota - share).abs() < 1 + 1e-4).all())


def test_the_draw_follows_its_seed() -> None:
    kinds = [Selection("stratified", 9, 0), Selection("stratified", 9, 1), Selection("random", 9, 0)]
    draws = [tuple(positions(SORTED, kind).tolist()) for kind in kinds]
    assert len(set(draws)) == 3 and draws == [tuple(positions(SORTED, kind).tolist()) for kind in kinds]


@pytest.mark.parametrize(
    ("asked", "seed", "text"),
    [
        (50, None, "auto:50"),
        ("50", None, "auto:50"),
        ("first:50", None, "first:50"),
        ("stratified:50", None, "stratified:50 seed 0"),
        ("stratified:50", 3, "stratified:50 seed 3"),
        ("stratified:50 seed 3", None, "stratified:50 seed 3"),
        ("random:50", 3, "random:50 seed 3"),
        (50, 3, "random:50 seed 3"),
    ],
)
def test_forms_of_a_selection(asked: object, seed: int | None, text: str) -> None:
    assert str(parse(asked, seed)) == text and parse(text) == parse(asked, seed)


NONSENSE = (0, -1, 1.5, True, None, "", "many", "1.5", "1e3", "first", "first:", "first:0", "10^18", "9" * 5000, "~")


@pytest.mark.parametrize("asked", [*NONSENSE, "last:5", [5], "stratified:5 seed -1", float("nan")])
def test_what_is_no_number_of_examples_is_refused_with_its_value(asked: object) -> None:
    with pytest.raises(InputError, match="--examples is .*must be"):
        parse(asked)


@pytest.mark.parametrize(("asked", "seed"), [("first:5", 1), ("random:5 seed 2", 1), (5, -1)])
def test_a_seed_that_cannot_be_meant_is_refused(asked: object, seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        parse(asked, seed)


def test_the_record_reproduces_the_selection_also_of_older_runs() -> None:
    assert parse_record(50) == Selection("first", 50)
    for selection in (Selection("first", 50), Selection("stratified", 50, 3), Selection("random", 5, 1)):
        assert parse_record(selection.record) == selection
    with pytest.raises(InputError, match="200"):
        positions(SORTED, Selection("first", 200))


def test_notes_stay_with_a_part_of_a_selection() -> None:
    taken, _ = choose(split(SORTED), parse(50))
    assert select(taken, torch.arange(10)).notes == taken.notes


def test_more_examples_than_a_number_can_count_are_all_of_them() -> None:
    taken, how = choose(split(SHUFFLED), parse("1" + "0" * 30))
    assert len(taken) == 180 and str(how) == "first:180" and "only 180" in taken.notes[0]
