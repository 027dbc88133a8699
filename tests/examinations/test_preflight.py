"""The doctor: each injected fault gets a message, and a clean set-up none."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.planted import EPS, Averaged, Behind, Coupled, Dropped, Softmax, fit
from support.toys import Function
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, array_split
from unperturbed.examinations.data_faults import data_faults
from unperturbed.examinations.preflight import doctor
from unperturbed.threat import Threat

THREAT = Threat("Linf", EPS)
NET = fit(0.0, 0, 4)
DATA = load_data("digits")
assert DATA.test is not None
X, Y = DATA.test.inputs(torch.arange(200)), DATA.test.labels[:200]
BYTES = (255 * X).round() / 255


def names(model: nn.Module = NET, data: Any = (X, Y), threat: Threat = THREAT) -> list[str]:
    return [symptom.name for symptom in doctor(model, data, threat).symptoms]


def changed(change: Any) -> nn.Module:
    """Return a copy of the network with other weights."""
    model = fit(0.0, 0, 0)
    model.load_state_dict(NET.state_dict())
    with torch.no_grad():
        change(model)
    return model


class Training(nn.Module):
    """The network with a dropout layer, left in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = NET, nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.drop(x))  # type: ignore[no-any-return]


def test_a_clean_set_up_gets_no_message_and_estimates() -> None:
    found = doctor(NET, DATA, THREAT)
    assert found.symptoms == () and found.facts["clean_accuracy"] > 0.85 and found.seconds < 30
    seconds = found.facts["seconds"]
    assert seconds["evaluate --suite standard"] > seconds["evaluate --suite pgd"] > 0
    n = found.facts["examples"]
    share = 600 / 8000 + max(16, round(0.05 * n)) / n
    assert seconds["evaluate --suite fast"] == pytest.approx(share * seconds["evaluate --suite standard"])


def twins() -> Data:
    return replace(DATA, train=array_split(X, Y), test=array_split(X[:50], Y[:50]))


FAULTS = {
    "inputs from 0 to 255": ("inputs outside the bounds", lambda: names(data=(255 * X, Y))),
    "inputs normalised already": ("inputs outside the bounds", lambda: names(data=((X - 0.3) / 0.4, Y))),
    "inputs divided twice": ("inputs too small", lambda: names(data=(X / 255, Y))),
    "NaN inputs": ("inputs not finite", lambda: names(data=(torch.where(X > 0.9, torch.nan, X), Y))),
    "one example again and again": ("inputs all alike", lambda: names(data=(X[:1].expand(50, 1, 8, 8), Y[:50]))),
    "labels from 1": ("label base", lambda: names(data=(X, Y + 1))),
    "labels of one class": ("one class", lambda: names(data=(X[Y == 3], Y[Y == 3]))),
    "shuffled labels": ("chance", lambda: names(data=(X, Y[torch.randperm(200, generator=torch.Generator())]))),
    "too few classes": ("class count", lambda: names(nn.Sequential(NET, nn.Linear(10, 5)))),
    "probabilities": ("probabilities", lambda: names(Softmax(NET))),
    "random answers": ("random answers", lambda: names(Dropped(NET))),
    "state": ("state", lambda: names(Averaged(NET))),
    "batch dependence": ("batch dependence", lambda: names(Coupled(NET))),
    "half precision": ("weights' type", lambda: names(changed(lambda model: model.half()))),
    "NaN weights": ("weights not finite", lambda: names(changed(lambda model: model.head.bias.fill_(torch.nan)))),
    "dead network": ("constant answers", lambda: names(changed(lambda model: model.head.weight.zero_()))),
    "no gradient": ("no gradient", lambda: names(Function(lambda x: NET(x).detach()))),
    "zero gradient": ("no gradient", lambda: names(Behind(NET, "zero"))),
    "NaN gradient": ("gradient not finite", lambda: names(Behind(NET, "nan"))),
    "train mode": ("train mode", lambda: names(Training().train())),
    "missing normalisation": ("normalisation", lambda: names(Function(lambda x: NET(x / 255)), data=(BYTES, Y))),
    "eps of 8 for 8/255": ("eps", lambda: names(threat=Threat("Linf", 8.0))),
    "test examples in training": ("duplicates", lambda: names(data=twins())),
    "another input shape": ("the model does not run", lambda: names(nn.Linear(3, 10))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gets_its_message(fault: str) -> None:
    expected, found = FAULTS[fault][0], FAULTS[fault][1]()
    assert expected in found, f"{fault}: {found}"


def test_at_least_eighteen_faults_have_separate_cases() -> None:
    assert len(FAULTS) >= 18 and len({expected for expected, _ in FAULTS.values()}) >= 18


def test_faults_of_data_need_no_network() -> None:
    split = array_split(X, Y)
    assert data_faults(split, THREAT) == []
    assert [fault.name for fault in data_faults(array_split(X / 255, Y + 1), THREAT)][:2] == [
        "inputs too small",
        "label base",
    ]
