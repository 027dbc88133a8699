"""An example's result belongs to the example: not to its place, its company, or the selection it is seen through."""

import torch

from toys import linear, uniform
from unperturbed.data.convert import as_split
from unperturbed.data.split import select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Outcome
from unperturbed.threat import Threat


def by_id(outcome: Outcome) -> dict[int, tuple[object, ...]]:
    rows = zip(*outcome.examples.values(), strict=True)
    return {row[0]: row for row in rows}


def test_a_shuffled_split_gives_the_same_table_bit_for_bit() -> None:
    x = uniform(80, 6, seed=1)
    model, threat = linear(6, 4), Threat("Linf", 0.05)
    y = model(x).argmax(1)
    split = as_split((x, y))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    straight = evaluate(model, split, threat, batch_size=16)
    shuffled = evaluate(model, select(split, order), threat, batch_size=16)
    assert shuffled.examples["id"] == order.tolist()
    assert by_id(straight) == by_id(shuffled)
    assert len(set(straight.examples["verdict"])) > 1


def test_a_part_of_a_split_gives_the_part_of_its_table() -> None:
    x = uniform(80, 6, seed=1)
    model, threat = linear(6, 4), Threat("L2", 0.12)
    y = model(x).argmax(1)
    split = as_split((x, y))
    part = select(split, torch.arange(7, 60, 3))
    whole = by_id(evaluate(model, split, threat, batch_size=16))
    some = by_id(evaluate(model, part, threat, batch_size=16))
    assert all(whole[name] == row for name, row in some.items()) and len(some) == 18
