"""Candidates of remedies for a hidden gradient, compared by a short attack on the real network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.remedies.cuts import FromInputOf, LogitsOf, LogProbabilities, PastLayer, Smoothed
from unperturbed.examinations.remedies.deployed import OneByOne
from unperturbed.examinations.remedies.layers import LayerCall, bare, last_calls
from unperturbed.examinations.remedies.operations import PastOperations
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.types import Batch, Inputs

if TYPE_CHECKING:
    from unperturbed.examinations.audited import Audited

STEPS, DRAWS = 10, 4
"""Steps of the short attack that compares candidates; and forwards per step for networks that draw random numbers."""
AGREE = 0.999
"""Share of examples with equal predictions above which a layer's output counts as the logits."""
MOST_LAYERS = 4
AS_IT_IS = "the network as it is"
DEAR = ("each example alone", "gradient averaged over noise", "gradient averaged over far noise")
_DEAR = 0.05
"""The share of broken examples by which an expensive candidate must be better: one of 32 is chance."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with the logits, or at least the predictions, of the network under audit.

    Attributes:
        name: the treatment of the gradient.
        network: attacks climb it.
        broken: share of examples that a short attack breaks on the real network.
        lead: mean lead of a wrong class there, in units of the logits' spread.
    """

    name: str
    network: nn.Module
    dear: bool = False
    """Whether a pass costs as much as several passes of the network."""
    broken: float = 0.0
    lead: float = -torch.inf


def candidates_for(audited: "Audited") -> list[Candidate]:
    """Return candidates for attacking the network, the most successful on the real network first."""
    source = audited.steady
    logits = logits_source(audited)
    near = audited.threat.even_share(audited.few.x) / 2
    ways: list[tuple[str, Callable[[], nn.Module]]] = [
        (AS_IT_IS, lambda: source),
        ("straight through operations without a gradient", lambda: PastOperations(source)),
        ("straight through rounding and detaching", lambda: PastOperations(source, functions=False)),
        *_past_layers(audited, source),
        *_from_inputs(audited, source),
        ("gradient averaged over noise", lambda: Smoothed(source, near)),
        ("gradient averaged over far noise", lambda: Smoothed(PastOperations(source), 4 * near)),
    ]
    networks = [(name, make() if logits is None else logits[1](make())) for name, make in ways]
    if audited.behaviour.coupled:
        networks.append(("each example alone", OneByOne(networks[0][1])))
    tried = []
    for name, network in networks:
        label = name if logits is None else f"{name}, {logits[0]}"
        candidate = _tried(audited, Candidate(label, network, name in DEAR))
        if candidate is not None:
            tried.append(candidate)
    return sorted(tried, key=lambda entry: _DEAR * entry.dear - entry.broken - 0.2 * entry.lead)


def logits_source(audited: "Audited") -> tuple[str, Callable[[nn.Module], nn.Module]] | None:
    """Return a network that ends at an inner layer with the same predictions, or the logarithms of probabilities.

    None if the network's output is that of its last layer, and no probabilities.
    """
    final = audited.logits
    for call in reversed(last_calls(audited.model, audited.few)):
        if call.path == "" or call.value.dim() != 2 or call.value.shape[1] != final.shape[1]:
            continue
        layer = call.layer
        inside = LogitsOf(audited.steady, layer)
        inner = OneByOne(inside) if audited.behaviour.coupled else inside
        answers = audited.answers_of(inner, audited.batch.x)
        agreement = float((answers.argmax(1) == final.argmax(1)).float().mean())
        outputs = audited.answers(audited.few.x)
        inner_outputs = audited.answers_of(inner, audited.few.x)
        if inner_outputs.shape == outputs.shape and torch.allclose(
            inner_outputs, outputs, rtol=1e-3, atol=1e-3 * float(outputs.std())
        ):
            continue  # the output, or the tensor of which it is a copy
        if agreement >= AGREE and not audited.behaviour.is_random:
            return f"logits of layer `{call.path}`", partial(LogitsOf, layer=layer)
    if looks_like_probabilities(final):
        return "logarithms of the probabilities", LogProbabilities
    return None


def looks_like_probabilities(logits: torch.Tensor) -> bool:
    """Tell whether all rows lie in [0, 1] and either sum to 1 or come close to both ends, like sigmoids."""
    inside = bool(((logits >= 0) & (logits <= 1)).all())
    return inside and bool(((logits.sum(1) - 1).abs() < 1e-3).all() or (logits.max() > 0.99 and logits.min() < 0.01))


def _past_layers(audited: "Audited", source: nn.Module) -> list[tuple[str, Callable[[], nn.Module]]]:
    guilty = [check for check in audited.layers if check.guilty and check.call.path]
    passing = [check.call for check in guilty if check.call.given.shape == check.call.value.shape]
    if not passing:
        return []
    names = ", ".join(f"`{call.path}`" for call in passing[:3]) + (", ..." if len(passing) > 3 else "")
    return [(f"straight through {names}", lambda: PastLayer(source, [call.layer for call in passing]))]


def _from_inputs(audited: "Audited", source: nn.Module) -> list[tuple[str, Callable[[], nn.Module]]]:
    """Return cuts before layers that take inputs like x, the outermost in the network."""
    x, ways = audited.few.x, list[tuple[str, Callable[[], nn.Module]]]()
    calls = last_calls(audited.model, audited.few)
    like = [call for call in calls if call.path and _like(call, x)]
    like.sort(key=lambda call: call.path.count("."))
    for call in like[:MOST_LAYERS]:
        name = f"gradient at the input of `{call.path}`"
        ways.append((name, lambda call=call: FromInputOf(source, call.layer, call.calls)))  # type: ignore[misc]
        ways.append(
            (f"{name}, past operations", lambda call=call: PastOperations(FromInputOf(source, call.layer, call.calls)))  # type: ignore[misc]
        )
    return ways


def _like(call: LayerCall, x: Inputs) -> bool:
    layer_input = call.given
    images = layer_input.dim() == x.dim() == 4 and layer_input.shape[:2] == x.shape[:2]
    return layer_input.shape == x.shape or images


def _tried(audited: "Audited", candidate: Candidate) -> Candidate | None:
    """Return the candidate with the result of a short attack; None if it has no gradient or fails."""
    batch, threat = audited.few, audited.threat
    draws = DRAWS if audited.behaviour.is_random else 1
    attack = GradientAttack("short", margin, PGD(steps=STEPS), draws=draws, enough=torch.inf)
    noise = Noise.of(audited.seed, batch.ids).fold(0xA0D17)
    network = candidate.network
    try:
        with under_attack(bare(network)), under_attack(network), as_reported(batch.x.device):
            probe = batch.x[:2].clone().requires_grad_()
            with torch.enable_grad():
                logits = network(probe)
                if not logits.requires_grad:
                    return None
                (slope,) = torch.autograd.grad(logits.sum() + logits[:, 0].sum(), probe, allow_unused=True)
            if slope is None:
                return None
            z = attack(network, batch, threat, noise, audited.batch_size).z
    except Exception:  # hooks and modes can fail on any network: the candidate is dropped
        return None
    leads = audited.mean_leads(batch, z)
    spread = audited.logits.std(dim=1).mean().clamp(min=torch.finfo(leads.dtype).tiny)
    broken = float((leads >= 0).double().mean())
    return replace(candidate, broken=broken, lead=float((leads / spread).clamp(-3, 3).nan_to_num(nan=-3.0).mean()))


def rows_of(batch: Batch, rows: torch.Tensor) -> Batch:
    """Return these examples of a batch."""
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
