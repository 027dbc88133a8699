"""The properties of a valid result of the Python API."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import unperturbed as un
from support.fuzzing import data, threats
from support.fuzzing.data import CLASSES, FEATURES, N
from support.toys import linear


def trains(method: Any, given: dict[str, Any]) -> None:
    """A method that can be made gives a finite loss and finite gradients, or refuses the network."""
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.SiLU(), nn.Linear(8, CLASSES))
    loss = un.robust_loss(method, model, data.inputs(), data.labels(), threats.threat(), step=0)
    assert loss.shape == () and bool(loss.isfinite()), loss
    loss.backward()


def attacks(attack: Any, given: dict[str, Any]) -> None:
    """An attack that can be made returns points of the threat set; those on patches need images, and are only made."""
    if attack.supports("Patch"):
        return
    suite = un.Suite("one", (attack,), "a test")
    usual = threats.threat()
    threat = usual if attack.supports(usual.norm) else un.Threat("L0", 2, usual.bounds)
    z = un.attack(linear(FEATURES, CLASSES), data.inputs(), data.labels(), threat, suite)
    lies_inside(z, {"threat": threat})


def lies_inside(z: Tensor, given: dict[str, Any]) -> None:
    threat = given.get("threat", threats.threat())
    x = given.get("x", data.inputs())
    x = torch.as_tensor(np.asarray(x, np.float32) if not isinstance(x, Tensor) else x).detach().float()
    assert z.shape == x.shape and bool(z.isfinite().all())
    assert bool(threat.contains(threat.boxed(x.to(z)), z).all())


def is_share(interval: Any, n: int) -> None:
    assert interval.n == n and 0 <= interval.low <= interval.high <= 1
    assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9


def is_outcome(outcome: Any, given: dict[str, Any]) -> None:
    assert outcome.n == N == sum(outcome.counts.values())
    is_share(outcome.clean_accuracy, N)
    is_share(outcome.robust_accuracy, N)
    assert outcome.robust_accuracy.value <= outcome.clean_accuracy.value
    survived = [
        margin
        for margin, verdict in zip(outcome.examples["clean_margin"], outcome.examples["verdict"], strict=True)
        if verdict == "survived"
    ]
    assert all(margin < 0 for margin in survived) and len(survived) == outcome.counts["survived"]


def are_outcomes(outcomes: Any, given: dict[str, Any]) -> None:
    for outcome in outcomes:
        is_outcome(outcome, given)
    assert len(outcomes) == len(given["threats"])


def are_distances(distances: Any, given: dict[str, Any]) -> None:
    assert distances.n == N == sum(distances.counts.values())
    is_share(distances.clean_accuracy, N)
    shares = [distances.at(eps) for eps in distances.radii]
    for share in shares:
        is_share(share, N)
    assert [share.value for share in shares] == sorted((share.value for share in shares), reverse=True)


def are_certificates(certificates: Any, given: dict[str, Any]) -> None:
    assert certificates.n == N
    shares = [certificates.smoothed(eps) for eps in certificates.radii]
    for interval in (certificates.clean_accuracy, *shares, *map(certificates.network, certificates.radii)):
        is_share(interval, N)
    assert [share.value for share in shares] == sorted((share.value for share in shares), reverse=True)


def is_probable(probable: Any, given: dict[str, Any]) -> None:
    assert probable.n == N
    for interval in (probable.clean_accuracy, *probable.accuracy.values()):
        is_share(interval, N)


def is_transfer(transfer: Any, given: dict[str, Any]) -> None:
    assert transfer.n == N and len(transfer.names) == len(given["models"])
    for interval in (*transfer.clean_accuracy, *transfer.worst, *(each for row in transfer.accuracy for each in row)):
        is_share(interval, N)


def is_diagnosis(diagnosis: Any, given: dict[str, Any]) -> None:
    for finding in diagnosis.examined.findings:
        assert all(math.isfinite(number.value) for number in finding.numbers), finding
    assert not any("Traceback" in text for text in diagnosis.failed.values())


def is_trained(trained: Any, given: dict[str, Any]) -> None:
    is_share(trained.clean_accuracy, trained.clean_accuracy.n)
    is_share(trained.robust_accuracy, trained.robust_accuracy.n)
    assert all(bool(weight.isfinite().all()) for weight in trained.model.parameters())


def is_loss(loss: Any, given: dict[str, Any]) -> None:
    assert loss.shape == () and bool(loss.isfinite())


def is_network(model: Any, given: dict[str, Any]) -> None:
    shape = given.get("input_shape", (FEATURES,))
    classes = int(given.get("classes", CLASSES))
    with torch.no_grad():
        assert model.eval()(torch.rand(2, *map(int, shape))).shape == (2, classes)


def is_threat(threat: Any, given: dict[str, Any]) -> None:
    assert isinstance(threat.eps, float) and 0 <= threat.eps < math.inf
    assert un.Threat.parse(str(threat).split(" w")[0]).norm == threat.norm
