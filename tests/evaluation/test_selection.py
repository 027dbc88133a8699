"""An example's result belongs to the example: not to its place, its company, or the selection it is seen through.

In every bit, with networks whose matrix products round alike in every row (layers of a handful of features do not).
"""

import pytest
import torch
from torch import nn

from support.toys import QUICK
from unperturbed.data.convert import as_split
from unperturbed.data.split import Split, select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Outcome
from unperturbed.threat import Threat
from unperturbed.types import Norm

EPS: dict[Norm, float] = {"Linf": 0.05, "L2": 0.4, "L1": 1.5}


def problem() -> tuple[nn.Module, Split]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(29, 256, bias=False), nn.ReLU(), nn.Linear(256, 4, bias=False))
    x = torch.rand(80, 29) * 2 - 1
    return model, as_split((x, model(x).argmax(1)))


def by_id(outcome: Outcome) -> dict[int, tuple[object, ...]]:
    return {row[0]: row for row in zip(*outcome.examples.values(), strict=True)}


@pytest.mark.parametrize("norm", EPS)
def test_a_shuffled_split_gives_the_same_table_bit_for_bit(norm: Norm) -> None:
    (model, split), threat = problem(), Threat(norm, EPS[norm], (-1.0, 1.0))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    straight = evaluate(model, split, threat, QUICK, batch_size=16)
    shuffled = evaluate(model, select(split, order), threat, QUICK, batch_size=16)
    assert shuffled.examples["id"] == order.tolist()
    assert by_id(straight) == by_id(shuffled)
    assert straight.counts["broken"] > 1 and straight.counts["survived"] > 1


def test_a_part_of_a_split_gives_the_part_of_its_table() -> None:
    (model, split), threat = problem(), Threat("Linf", EPS["Linf"], (-1.0, 1.0))
    whole = by_id(evaluate(model, split, threat, QUICK, batch_size=16))
    some = by_id(evaluate(model, select(split, torch.arange(7, 60, 3)), threat, QUICK, batch_size=16))
    assert all(whole[name] == row for name, row in some.items()) and len(some) == 18
