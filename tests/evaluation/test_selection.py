"""The result of an example does not depend on its position, the other examples, or the selection.

In every bit where the network's matrix products round every row alike; elsewhere verdicts, except for ties.
"""

from typing import Any

import pytest
import torch
from torch import nn

from support.rounding import round_alike
from support.toys import QUICK
from unperturbed.data.convert import as_split
from unperturbed.data.split import Split, select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.search import TIE
from unperturbed.findings import Outcome
from unperturbed.threat import Threat
from unperturbed.types import Norm

EPS: dict[Norm, float] = {"Linf": 0.05, "L2": 0.4, "L1": 1.5}


def problem() -> tuple[nn.Module, Split]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(29, 256, bias=False), nn.ReLU(), nn.Linear(256, 4, bias=False))
    x = torch.rand(80, 29) * 2 - 1
    return model, as_split((x, model(x).argmax(1)))


def by_id(outcome: Outcome) -> dict[int, dict[str, Any]]:
    rows = [dict(zip(outcome.examples, row, strict=True)) for row in zip(*outcome.examples.values(), strict=True)]
    return {row["id"]: row for row in rows}


def assert_part(part: Outcome, whole: Outcome, alike: bool) -> None:
    rows = by_id(whole)
    for name, row in by_id(part).items():
        if alike:
            assert row == rows[name]
        elif min(abs(row["margin"]), abs(rows[name]["margin"])) > TIE:
            assert row["verdict"] == rows[name]["verdict"]


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("norm", EPS)
def test_a_shuffled_split_gives_the_same_table(norm: Norm) -> None:
    (model, split), threat = problem(), Threat(norm, EPS[norm], (-1.0, 1.0))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    straight = evaluate(model, split, threat, QUICK, batch_size=16)
    shuffled = evaluate(model, select(split, order), threat, QUICK, batch_size=16)
    assert shuffled.examples["id"] == order.tolist()
    assert_part(shuffled, straight, round_alike(model, split.inputs(order), 16))
    assert straight.counts["broken"] > 1 and straight.counts["survived"] > 1


@pytest.mark.rounding
def test_a_part_of_a_split_gives_the_part_of_its_table() -> None:
    (model, split), threat = problem(), Threat("Linf", EPS["Linf"], (-1.0, 1.0))
    whole = evaluate(model, split, threat, QUICK, batch_size=16)
    some = evaluate(model, select(split, torch.arange(7, 60, 3)), threat, QUICK, batch_size=16)
    assert_part(some, whole, round_alike(model, split.inputs(torch.arange(80)), 16))
    assert some.examples["id"] == list(range(7, 60, 3)) and min(some.counts["broken"], some.counts["survived"]) > 0
