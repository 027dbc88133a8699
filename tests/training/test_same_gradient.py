"""Ways to save memory keep the gradient of a method, or refuse it by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support import regularisers
from support.examples import make_batch, network, noise_for
from support.regularisers import CASES
from support.toys import blobs, mlp
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.free import Free
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.mart import MART
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.term import TERM
from unperturbed.methods.trades import TRADES
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.recompute import recomputed
from unperturbed.training.same_gradient import Watched, check_accumulation, check_recomputation, check_sharding
from unperturbed.training.step import accumulate

THREAT = Threat("Linf", 0.05)
MEANS: dict[str, Callable[[], Method]] = {
    "at": AT,
    "trades": TRADES,
    "mart": MART,
    "scorpio": SCORPIO,
    "llr": LLR,
    "constrained trades": lambda: Constrained(TRADES(), nominal_loss=0.3, dual_step=0.5, wait=0),
}
WHOLE: dict[str, Callable[[], Method]] = {"awp": AWP, "free": Free, "term": TERM}
"""Methods whose step depends on the batch as a whole."""


def gradient(model: nn.Module, method: Method, parts: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradient and the terms of a step on 14 examples, in float64."""
    batch = make_batch(14, torch.float64)
    model.zero_grad()
    terms, inner = accumulate(
        model, model, method, batch, THREAT, noise_for(batch), parts, lambda loss: torch.autograd.backward(loss)
    )
    method.after_step(batch, inner, terms, THREAT)
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    return found, {name: term.detach() for name, term in terms.items()}


@pytest.mark.parametrize("parts", [2, 4, 20])
@pytest.mark.parametrize("name", MEANS)
def test_parts_of_a_batch_give_the_gradient_terms_and_memory_of_the_whole(name: str, parts: int) -> None:
    """Four parts of 14 examples have different sizes, and of 20 some would be empty."""
    model, whole, method = network("plain", torch.float64), MEANS[name](), MEANS[name]()
    expected, terms = gradient(model, whole, 1)
    found, sums = gradient(model, method, parts)
    assert max(float(part.abs().max()) for part in expected) > 1e-3
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-6)
    assert {key: float(value) for key, value in sums.items()} == pytest.approx(
        {key: float(value) for key, value in terms.items()}, rel=1e-6
    )
    if isinstance(method, Constrained) and isinstance(whole, Constrained):
        assert float(method.dual) == pytest.approx(float(whole.dual), rel=1e-5) != 1.0


@pytest.mark.parametrize("name", [*MEANS, *WHOLE])
def test_a_method_whose_step_depends_on_the_whole_batch_is_refused_by_name(name: str) -> None:
    model, batch = network("plain"), make_batch(8)
    if name in MEANS:
        check_accumulation(model, MEANS[name](), batch, THREAT, noise_for(batch))
        return
    with pytest.raises(InputError, match=f"{name} cannot be trained with --accumulate"):
        check_accumulation(model, WHOLE[name](), batch, THREAT, noise_for(batch))


RECOMPUTED = {"none": {"awp", "llr"}, "train": {"awp", "llr", "llr differences"}}
"""Refused methods by the kind of batch norm: a second forward loses tangents, and statistics held in train mode."""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", RECOMPUTED)
def test_recomputation_is_refused_where_it_changes_the_gradient_and_exact_elsewhere(batch_norm: str) -> None:
    batch, noise = regularisers.BATCH, noise_for(regularisers.BATCH)
    methods: dict[str, Callable[[], Method]] = {
        **MEANS,
        "llr differences": lambda: LLR(form="differences"),
        "awp": AWP,
    }
    for name, make in methods.items():
        inside = regularisers.network(CASES["llr, gap"], batch_norm)
        model = nn.Sequential(inside[:3], inside[3:6], inside[6:])
        if name in RECOMPUTED[batch_norm]:
            with pytest.raises(InputError, match="cannot be trained with --checkpoint-activations"):
                check_recomputation(model, ["0", "1"], make(), batch, THREAT, noise)
            continue
        check_recomputation(model, ["0", "1"], make(), batch, THREAT, noise)
        twin = InPrecision(model.double())
        expected, _ = gradient_at(twin, make())
        with recomputed([model[0], model[1]]):
            found, _ = gradient_at(twin, make())
        for part, other in zip(found, expected, strict=True):
            torch.testing.assert_close(part, other, rtol=0, atol=1e-6)


def gradient_at(model: nn.Module, method: Method) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the gradient at the same running averages each time."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    result = gradient(model, method, 1)
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(before[name])
    return result


@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (AT, None),
        (TRADES, None),
        (SCORPIO, None),
        (lambda: LLR(form="differences"), None),
        (LLR, "llr cannot .* second derivative .* or give --method.form differences"),
        (lambda: Constrained(LLR()), "constrained cannot .* or give --method.form differences"),
        (lambda: GradientPenalty(form="exact"), "second derivative .* or give --method.form forward"),
        (AWP, "awp cannot .* other tensors as weights"),
    ],
)
def test_a_method_that_shards_do_not_support_is_refused_before_it_meets_them(
    make: Callable[[], Method], refused: str | None
) -> None:
    """A second derivative of a network in shards ends the process without a message."""
    model, batch = InPrecision(network("plain")), make_batch(4)
    met = []

    def sharded() -> list[Tensor]:
        met.append(True)
        model.zero_grad()
        accumulate(model, model, make(), batch, THREAT, noise_for(batch), 1, lambda loss: torch.autograd.backward(loss))
        return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]

    if refused is None:
        check_sharding(model, sharded, make(), batch, THREAT, noise_for(batch))
        with pytest.raises(InputError, match="change its gradient by 1"):
            check_sharding(model, lambda: [2 * part for part in sharded()], make(), batch, THREAT, noise_for(batch))
    else:
        with pytest.raises(InputError, match=refused):
            check_sharding(model, sharded, make(), batch, THREAT, noise_for(batch))
        assert not met


def test_forward_mode_is_a_second_derivative_too() -> None:
    model = network("plain")
    watched = Watched(model)
    x = make_batch(2).x
    torch.func.jvp(watched, (x,), (torch.ones_like(x),))
    assert watched.reason == "it needs a second derivative of the network"


@pytest.mark.slow
def test_a_run_with_parts_and_recomputation_is_the_run_without() -> None:
    recipe, weights = Recipe(epochs=2, batch_size=18, precision="64"), []
    for changed in ({}, {"accumulate": 3, "checkpoint_activations": True}):
        model = nn.Sequential(mlp(6, 8), nn.Sequential(nn.SiLU(), nn.Linear(8, 8), nn.SiLU()), nn.Linear(8, 3))
        torch.manual_seed(0)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.5)
        train(model, blobs(60), THREAT, AT(), Recipe(**{**vars(recipe), **changed}), device="cpu")
        weights.append([weight.detach() for weight in model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_parts_have_separate_batch_statistics_and_the_run_says_so(caplog: pytest.LogCaptureFixture) -> None:
    trained = train(
        mlp(6, 3, norm=True), blobs(60), THREAT, AT(), Recipe(epochs=1, batch_size=18, accumulate=3), device="cpu"
    )
    assert any("statistics of parts of 6 examples" in text for text in trained.warnings)


def test_compiled_networks_cannot_be_recomputed() -> None:
    with pytest.raises(InputError, match="checkpoint_activations runs eagerly"):
        Recipe(compile=True, checkpoint_activations=True)
