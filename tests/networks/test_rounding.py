"""Whether rows are rounded alike is seen on networks that are made to do so, or not to."""

import os
import time

import pytest
import torch
from torch import Tensor, nn

from support.examples import network, untouched
from support.rounding import by_place, round_by_place
from support.toys import QUICK, SHORT, Function, blobs, linear, mlp
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.probable import probable_accuracy
from unperturbed.evaluation.transfer import transfer
from unperturbed.networks.rounding import rounding, rows_rounded_alike
from unperturbed.threat import Threat

THREAT = Threat("Linf", 0.05)
X = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))


class OneGradient(torch.autograd.Function):
    """The identity, whose gradient is rounded otherwise in one row."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        gradient[-1] = gradient[-1].nextafter(torch.tensor(torch.inf))
        return gradient


def elementwise(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] + x[:, 1], x[:, 2] * x[:, 3]], dim=1)


@pytest.mark.parametrize("places", [1, 2, 7, 64])
def test_a_network_without_matrix_products_rounds_rows_alike(places: int) -> None:
    assert rows_rounded_alike(Function(elementwise), X, places) is True


@pytest.mark.parametrize("places", [2, 7, 64])
def test_a_last_bit_that_depends_on_the_row_is_seen(monkeypatch: pytest.MonkeyPatch, places: int) -> None:
    round_by_place(monkeypatch)
    assert rows_rounded_alike(mlp(6, 3), X, places) is False
    assert rows_rounded_alike(mlp(6, 3), X, 1) is True, "a batch of one has no other places"


def test_a_bit_of_the_gradient_alone_is_seen() -> None:
    assert rows_rounded_alike(Function(lambda x: elementwise(OneGradient.apply(x))), X, 8) is False


@pytest.mark.parametrize("training", [True, False])
def test_dropout_in_train_mode_is_not_taken_for_rounding(training: bool) -> None:
    model = nn.Sequential(linear(6, 4), nn.Dropout(0.5)).train(training)
    assert rows_rounded_alike(Function(lambda x: elementwise(x)), X, 8) is True
    with untouched(model, X):
        rows_rounded_alike(model, X, 8)


def test_a_network_that_draws_random_numbers_or_fails_has_no_answer() -> None:
    noisy = Function(lambda x: elementwise(x) + torch.randn(len(x), 2))
    broken = Function(lambda x: elementwise(x)[: 1 // 0])
    assert rows_rounded_alike(noisy, X, 8) is None and rows_rounded_alike(broken, X, 8) is None
    assert rounding([Function(elementwise), noisy], X, 8)["rows_rounded_alike"] is None


def test_nan_in_all_rows_is_no_difference() -> None:
    assert rows_rounded_alike(Function(lambda x: elementwise(x) * torch.nan), X, 8) is True


@pytest.mark.slow
@pytest.mark.parametrize("uneven", [False, True])
def test_each_result_says_whether_rows_were_rounded_alike(monkeypatch: pytest.MonkeyPatch, uneven: bool) -> None:
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    data, model = blobs(12), Function(elementwise)
    if uneven:
        net = linear(6, 2)
        model = Function(lambda x: by_place(nn.functional.linear)(x, net.weight, net.bias))
    data = data[0], data[1] % 2
    found = [
        evaluate(model, data, THREAT, QUICK).json(),
        minimum_norm(model, data, THREAT, SHORT[0], radii=[0.05]).json(),
        probable_accuracy(model, data, THREAT, (0.5,), draws=2).json(),
        transfer({"a": model, "b": Function(elementwise)}, data, THREAT, QUICK).json(),
    ]
    for each in found:
        assert each["environment"]["rows_rounded_alike"] is not uneven
        assert each["environment"]["MKL_CBWR"] == os.environ["MKL_CBWR"]


def test_a_resumed_evaluation_keeps_its_answer_and_warns_of_another_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    data, model = blobs(12), mlp(6, 3)
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    first = evaluate(model, data, THREAT, QUICK, out=str(tmp_path))
    monkeypatch.delenv("MKL_CBWR")
    again = evaluate(model, data, THREAT, QUICK, out=str(tmp_path))
    assert again.environment == first.environment and not any("MKL_CBWR" in text for text in first.warnings)
    assert any("began with MKL_CBWR=AVX2 and resumes with (unset)" in text for text in again.warnings)


def test_it_costs_well_under_a_second() -> None:
    model, x = SmallCNN(), torch.rand(2, 1, 28, 28)
    rows_rounded_alike(model, x, 8)
    began = time.process_time()
    assert rows_rounded_alike(model, x, 512) is not None
    assert time.process_time() - began < 3.0  # of the processor; 0.2 s on a quiet one


def test_a_smooth_network_in_float64_has_an_answer() -> None:
    model = network("norm", torch.float64)
    assert rows_rounded_alike(model, torch.rand(3, 2, 4, 4, dtype=torch.float64), 16) is not None
