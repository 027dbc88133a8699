"""The quick robust accuracy of callbacks: that of the probe, in any mode of gradients, and nothing is changed."""

import pytest
import torch

from support.toys import blobs, mlp
from unperturbed.adapters.held_out import HeldOut, end_epoch
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.base import EpochEnd
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.alarm import probe

THREAT = Threat("Linf", 0.1)
X, Y = blobs(40)


def test_it_is_the_probe_of_training_also_where_gradients_are_off() -> None:
    model, held_out = mlp(6, 3).train(), HeldOut.of((X, Y), THREAT, 30, seed=3)
    noise = Noise.of(3, torch.arange(30)).fold(-2)
    expected = probe(model, held_out.batch, THREAT, noise)
    assert expected.n == 30 and held_out.probe(model) == expected
    with torch.no_grad():
        assert held_out.probe(model) == expected
    with torch.inference_mode():
        assert held_out.probe(model) == expected
    assert model.training and all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_the_robust_accuracy_of_a_linear_network_is_that_of_the_closed_form() -> None:
    """The margin of w x + b against itself falls by exactly eps times the L1 norm of 2 w."""
    model = torch.nn.Linear(6, 2)
    with torch.no_grad():
        model.weight[0] = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])
        model.weight[1] = -model.weight[0]
        model.bias.zero_()
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(1))
    threat = Threat("Linf", 0.05, bounds=None)
    with torch.no_grad():
        logits = model(x)
    margin = (logits[:, 0] - logits[:, 1]).abs()
    robust = margin > 0.05 * (model.weight[0] - model.weight[1]).abs().sum()
    result = HeldOut.of((x, logits.argmax(1)), threat, 60, seed=0).probe(model)
    assert result.clean == 1 and 0 < robust.float().mean() < 1
    assert result.many_steps == pytest.approx(float(robust.double().mean()))


@pytest.mark.parametrize(
    ("x", "examples", "message"),
    [(X + 3, 10, "outside|range"), (X * float("nan"), 10, "NaN"), (X, 0, "at least one")],
)
def test_wrong_data_is_refused(x: torch.Tensor, examples: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        HeldOut.of((x, Y), THREAT, examples, seed=0)


def test_a_method_gets_the_clean_accuracy_of_the_epoch() -> None:
    ends: list[EpochEnd] = []

    class Listening(AT):
        def after_epoch(self, end: EpochEnd) -> None:
            ends.append(end)

    held_out = HeldOut.of((X, Y), THREAT, 40, seed=0)
    result = held_out.probe(mlp(6, 3))
    end_epoch(Listening(), result, 0.5)
    end_epoch(None, result, 0.5)
    assert ends == [EpochEnd(result.clean, 40, 0.5)]


def test_sorted_examples_are_probed_in_every_class() -> None:
    """The first 20 of these are all of one class, on which a network that returns it always is right."""
    x, y = blobs(60)[0], torch.arange(3).repeat_interleave(20)
    held_out = HeldOut.of((x, y), THREAT, 20, seed=0)
    assert sorted(torch.bincount(held_out.batch.y).tolist()) == [6, 7, 7]
    assert torch.equal(held_out.batch.x, x[held_out.batch.ids]) and torch.equal(held_out.batch.y, y[held_out.batch.ids])
