"""No regulariser silently has a weight gradient that is zero or wrong (S24): plain, compiled, in bfloat16.

Two processes are in `training/test_processes.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

import unperturbed.networks.modes
from support.calculus import derivative, flat
from support.regularisers import (
    BATCH,
    CASES,
    THREAT,
    Alone,
    Gradient,
    check_agrees,
    in_precision,
    network,
    noise_of,
    points,
    trained_gradient,
)
from unperturbed.curvature.products import cross_entropy_with, dot, forward_slope, input_gradient
from unperturbed.losses import cross_entropy
from unperturbed.methods import cure, elle, gradient_penalty, llr, soar
from unperturbed.networks.modes import Again, running_stats, under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Model, Terms

every_case = pytest.mark.parametrize("name", CASES)

FLOAT32 = 1e-3
"""Of a float32 gradient from the float64 one: 1e-4 for differences, 1e-5 for the others."""
BFLOAT16 = 0.08
"""Of the gradient of a term computed in bfloat16, which rounds by 0.002 at each of the network's layers, forwards and
backwards; a difference of two losses has the error of both."""
STATISTICS = 0.015
"""Where batch norm's statistics come from a clean forward in bfloat16, and the rest is computed in float32."""
IN_BFLOAT16: dict[str, float] = {
    **dict.fromkeys(("scorpio", "scorpio, loss gap", "scorpio, exact products"), BFLOAT16),
    **dict.fromkeys(("fw-at", "fw-at-adapt", "sora"), BFLOAT16),
    **{f"llr in parts, {term}": STATISTICS for term in ("gap", "slope")},
}
"""Tolerances of the terms that are computed in bfloat16; all other terms are computed in float32."""
COMPILED = ("scorpio", "scorpio, loss gap", "scorpio, exact products", "grad-align", "fw-at", "fw-at-adapt", "sora")
"""Where forwards in training are compiled; whatever needs a second derivative or held statistics runs eagerly."""


@cache
def inner_of(name: str) -> Inner:
    return points(CASES[name], InPrecision(network(CASES[name])))


def alone(name: str, dtype: torch.dtype = torch.float32) -> Alone:
    """Return a new instance of the method with the one term, and a copy of the same inner result."""
    return Alone(CASES[name].make(), CASES[name].term, in_precision(dtype, BATCH, inner_of(name))[1])


def gradient(name: str, autocast: torch.dtype | None = None) -> Gradient:
    return trained_gradient(alone(name), InPrecision(network(CASES[name]), autocast))


@cache
def expected(name: str) -> Gradient:
    """Return what plain training in float32 gives."""
    return gradient(name)


@every_case
def test_plain_s24(name: str) -> None:
    """Not zero, and the derivative: in float64 by finite differences, in float32 as in float64."""
    model, method = InPrecision(network(CASES[name], dtype=torch.float64)), alone(name, torch.float64)
    batch, inner = in_precision(torch.float64, BATCH, inner_of(name))

    averages = {path: buffer.clone() for path, buffer in model.named_buffers()}

    def term() -> Tensor:
        model.load_state_dict(averages, strict=False)
        with torch.enable_grad():
            return method.loss(model, batch, inner, THREAT, noise_of(batch))[CASES[name].term]

    names, weights = zip(*model.network.named_parameters(), strict=True)
    in_float64 = torch.autograd.grad(term(), weights)
    every, draw = flat(in_float64), torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = nn.functional.normalize(torch.randn(every.shape, generator=draw, dtype=every.dtype), dim=0)
        slope = derivative(term, model, direction, h=3e-7)  # a long step meets more changes of sign
        assert abs(slope - every @ direction) <= 1e-6 * every.norm()
    check_agrees(expected(name), dict(zip(names, in_float64, strict=True)), FLOAT32)


@every_case
def test_bfloat16_s24(name: str) -> None:
    check_agrees(gradient(name, torch.bfloat16), expected(name), IN_BFLOAT16.get(name, 1e-6))


@pytest.mark.parametrize("name", ["llr, gap", "llr in reverse mode, gap", "scorpio", "scorpio, exact products"])
def test_the_search_in_bfloat16_s24(name: str) -> None:
    """It climbs a gap of losses, or differences of gradients, and must come as far: by float32's measure."""
    bare = network(CASES[name])
    reached = []
    with under_attack(bare):
        clean, g = input_gradient(bare, BATCH.x, cross_entropy_with(BATCH.y))
        for autocast in (None, torch.bfloat16):
            z = points(CASES[name], InPrecision(bare, autocast)).z
            gap = cross_entropy(bare(z), BATCH.y) - clean
            reached.append(float((gap - dot(z - BATCH.x, g)).abs().mean() if "llr" in name else gap.mean()))
    assert reached[1] > 0.9 * reached[0] > 0.01


class Compiled:
    """Networks compiled once for all cases, and how often they have been called so."""

    def __init__(self) -> None:
        self.calls = 0
        self.networks = {case.norm: self.counted(network(case)) for case in CASES.values()}

    def counted(self, bare: nn.Module) -> InPrecision:
        model = InPrecision(bare, compile=True)
        (compiled,) = model._compiled

        def call(x: Inputs) -> Logits:
            self.calls += 1
            logits: Logits = compiled(x)
            return logits

        model._compiled = [call]  # type: ignore[list-item]
        return model


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@every_case
def test_compiled_s24(name: str, compiled: Compiled) -> None:
    compiled.calls = 0
    check_agrees(trained_gradient(alone(name), compiled.networks[CASES[name].norm]), expected(name), 1e-4)
    assert (compiled.calls > 0) == (name in COMPILED)


@pytest.fixture(scope="module")
def traced() -> Iterator[Compiled]:
    """Compiled without the slow part, the generation of machine code: with the same refusal of second derivatives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
        yield Compiled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@every_case
def test_the_search_on_a_compiled_network_s24(name: str, traced: Compiled) -> None:
    found = points(CASES[name], traced.networks[CASES[name].norm])
    torch.testing.assert_close(found.z, inner_of(name).z, rtol=0, atol=1e-5)


# The check of the tests above: what they are there to see


class Detached(Alone):
    """Its term has the right value, and no gradient."""

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        (term,) = super().loss(model, batch, inner, threat, noise).values()
        return {self.term: term.detach() + 0 * model(batch.x).sum()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        pass  # SORA would miss the gradient at its points


@every_case
def test_a_term_without_gradient_is_seen(name: str) -> None:
    method = alone(name)
    found = trained_gradient(Detached(method.method, method.term, method.inner), InPrecision(network(CASES[name])))
    with pytest.raises(AssertionError, match="is zero"):
        check_agrees(found, expected(name), BFLOAT16)


@contextmanager
def each_its_own(model: nn.Module) -> Iterator[Again]:
    yield nullcontext


@contextmanager
def by_averages(model: nn.Module) -> Iterator[Again]:
    with running_stats(model):
        yield lambda: running_stats(model)


HELD = {llr: "llr, gap", gradient_penalty: "gradient-penalty", cure: "cure", soar: "soar", elle: "elle"}


@pytest.mark.parametrize("wrong", [each_its_own, by_averages])
@pytest.mark.parametrize("name", HELD.values())
def test_other_statistics_of_batch_norm_are_seen(
    name: str, wrong: Callable[[nn.Module], AbstractContextManager[Again]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = expected(name)
    for module in HELD:
        monkeypatch.setattr(module, "clean_batch_stats", wrong)
    with pytest.raises(AssertionError, match="of its size away"):
        check_agrees(gradient(name), right, BFLOAT16)


@pytest.mark.parametrize("name", HELD.values())
def test_statistics_without_their_graph_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, apply = expected(name), unperturbed.networks.modes._Moments.apply

    def cut(h: Tensor, together: object) -> tuple[Tensor, ...]:
        return tuple(moment.detach() for moment in apply(h, together))

    monkeypatch.setattr(unperturbed.networks.modes._Moments, "apply", cut)
    with pytest.raises(AssertionError, match="of its size away"):
        check_agrees(gradient(name), right, BFLOAT16)


@pytest.mark.parametrize("name", ["llr differences, gap" if module is llr else name for module, name in HELD.items()])
def test_a_regulariser_in_bfloat16_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = expected(name)
    for module in HELD:
        monkeypatch.setattr(module, "plainly", nullcontext)
    with pytest.raises(AssertionError, match="of its size away"):
        check_agrees(gradient(name, torch.bfloat16), right, IN_BFLOAT16.get(name, 1e-6))


@pytest.mark.parametrize("name", ["llr in reverse mode, gap", "llr in reverse mode, slope"])
def test_torchs_wrong_gradient_of_layer_norms_tangent_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = expected(name)
    monkeypatch.setattr(llr, "slope", forward_slope)
    with pytest.raises(AssertionError, match="of its size away"):
        check_agrees(gradient(name), right, BFLOAT16)
