"""One attack on some examples, with a search in lower precision if that is faster, verified in full precision."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import part_of_search
from unperturbed.networks.failures import within_memory
from unperturbed.networks.modes import eager, own_randomness, under_attack
from unperturbed.networks.precision import InPrecision, Precision, choose
from unperturbed.networks.rounding import rounding
from unperturbed.networks.settings import UNTUNED, Tuning
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

TIE = 1e-4
"""A final margin this close to 0 counts as a tie: float32 rounding at another batch size may change its sign."""
_REACH = 4.0
"""A margin within this many root mean squares of the rounding errors of other margins may have the wrong sign."""

_AGREEING = 0.9
"""Cosine between gradients above which a search in lower precision climbs in the right direction."""
_ROUGH = 0.8
"""The share of the search in lower precision in an attack's reported progress."""


@dataclass(eq=False)
class Networks:
    """One network in the precisions of results and of searches, with its batch size."""

    reported: Model
    searched: Model
    """In the same precision, perhaps in a faster memory format."""
    rough: Model | None
    """In bfloat16, if that is faster still."""
    batch_size: int
    """Halved if memory runs out."""

    def rounding(self, examples: Inputs) -> dict[str, bool | str | None]:
        """Return whether all of them round rows in the same way, for a result's environment."""
        networks = (self.reported, self.searched, self.rough)
        return rounding([network for network in networks if network is not None], examples, self.batch_size)


def precision_of_search(
    checked_model: CheckedModel, precision: Literal["auto", "32"], tuning: Tuning = UNTUNED
) -> Precision:
    """Return how searches run the network by the rule, in bfloat16 if that works, and by the choices by hand."""
    classifier = checked_model.classifier
    if checked_model.dtype != torch.float32:
        return Precision("64-true", torch.contiguous_format, checked_model.dtype)
    chosen = choose("auto", classifier, checked_model.device, tuning.layout, tuning.compile)
    rough = chosen.autocast is not None and precision == "auto" and _bears(checked_model, chosen)
    return chosen if rough else replace(chosen, name="32-true")


def as_searched(checked_model: CheckedModel, chosen: Precision, batch_size: int) -> Networks:
    """Return the network for results and for searches, which run it as chosen."""
    classifier, layout = checked_model.classifier, chosen.memory_format
    if layout == torch.contiguous_format and not chosen.compiled and chosen.autocast is None:
        return Networks(classifier, classifier, None, batch_size)
    compiled, size = chosen.compiled, batch_size
    searched = InPrecision(classifier, memory_format=layout, compile=compiled, compiled_size=size)
    if chosen.autocast is None:
        return Networks(classifier, searched, None, batch_size)
    rough = InPrecision(classifier, chosen.autocast, memory_format=layout, compile=compiled, compiled_size=size)
    return Networks(classifier, searched, rough, batch_size)


def _bears(checked_model: CheckedModel, chosen: Precision) -> bool:
    """Tell whether the network has finite logits and gradients in the precision."""
    rough = InPrecision(checked_model.classifier, chosen.autocast, memory_format=chosen.memory_format)
    try:
        with under_attack(rough), own_randomness(0, checked_model.device), torch.enable_grad():
            x = checked_model.examples[:1].clone().requires_grad_()
            logits = rough(x)
            (slope,) = torch.autograd.grad(logits.sum(), x)
            return bool(logits.isfinite().all() and slope.isfinite().all())
    except Exception:  # an operation without bfloat16
        return False


def search(
    networks: Networks, block: Batch, rows: Labels, unlike: Tensor, attack: Attack, threat: Threat, noise: Noise
) -> tuple[AttackResult, PerExample, Tensor]:
    """Return an attack's result for these rows of a batch, the verified margins, and the updated `unlike`.

    `unlike` marks rows for which gradients in lower precision differed from the network's.

    A search in lower precision is repeated in full precision if its claim was refuted, if it came so close to a break
    that rounding may have hidden one, and if its gradients are not those of the network (saturated units round to flat
    ones, and then the search stands still). In the last case every later search is in full precision.
    """

    def look(model: Model, part: Labels) -> tuple[AttackResult, PerExample]:
        batch = Batch(block.x[part], block.y[part], block.ids[part], z=block.z[part])

        def run(batch_size: int) -> tuple[AttackResult, PerExample]:
            result = _attacked(attack, model, batch, threat, noise.rows(part), batch_size)
            margins = verify(networks.reported, batch, result.z, threat, batch_size, alone_up_to=torch.inf)
            not_finite = margins.isneginf() & threat.contains(batch.x, result.z)
            return replace(result, finite=result.finite & ~not_finite), margins

        result, networks.batch_size = within_memory(run, networks.batch_size)
        return result

    def slopes_agree(z: Inputs, part: Labels) -> Tensor:
        agree, networks.batch_size = within_memory(
            lambda batch_size: _slopes_agree(networks, z, block.y[part], batch_size), networks.batch_size
        )
        return agree

    unlike = unlike.clone()
    if networks.rough is None or not attack.bears_rounding:
        return (*look(networks.searched, rows), unlike)
    like = (~unlike).nonzero()[:, 0]
    unlike[like] = ~slopes_agree(block.x[rows[like]], rows[like])
    tried = (~unlike).nonzero()[:, 0]
    if len(tried) == 0:
        return (*look(networks.searched, rows), unlike)
    with part_of_search(0.0, _ROUGH):
        result, margins = look(networks.rough, rows[tried])
    off = (result.margin - margins)[result.margin.isfinite() & margins.isfinite()]
    near = _REACH * float(off.square().mean().sqrt()) if len(off) else 0.0
    standing = margins <= 0
    unlike[tried] = standing & ~slopes_agree(result.z, rows[tried])
    settled = standing & (result.margin <= 0) & (margins <= -near) & result.finite & ~unlike[tried]
    repeated = torch.ones_like(unlike).index_put((tried,), standing & ~settled).nonzero()[:, 0]
    if len(repeated) == 0:
        return result, margins, unlike
    with part_of_search(_ROUGH, 1.0, int((~standing).sum())):
        second, repeated_margins = look(networks.searched, rows[repeated])
    return (*_merged(block.x[rows], (tried, result, margins), (repeated, second, repeated_margins)), unlike)


def _attacked(
    attack: Attack, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int
) -> AttackResult:
    """Return the attack's result, with the network run eagerly where the attack fails on the compiled one.

    Compiled networks have no second derivative, which an attack of the user's may take.
    """
    try:
        return attack(model, batch, threat, noise, batch_size)
    except Exception:
        if not (isinstance(model, InPrecision) and model.is_compiled):
            raise
    with eager():
        return attack(model, batch, threat, noise, batch_size)


def _slopes_agree(networks: Networks, z: Inputs, y: Labels, batch_size: int) -> Tensor:
    """Tell per example whether the margin's gradient has the same direction in the rough network as in full precision.

    A gradient of 0 has no direction and does not agree, since a search that ends there has not used other gradients.
    """
    agree = [torch.zeros(0, dtype=torch.bool, device=z.device)]
    for part in torch.split(torch.arange(len(z), device=z.device), batch_size) if len(z) else ():
        rough, full = (_slope(model, z[part], y[part]) for model in (networks.rough, networks.searched))
        cosine = functional.cosine_similarity(rough.double(), full.double(), eps=1e-300)
        agree.append(cosine > _AGREEING)
    return torch.cat(agree)


def _slope(model: Model | None, z: Inputs, y: Labels) -> Tensor:
    """Return the gradient of the margin with respect to the input, flat: (n, d)."""
    assert model is not None
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(margin(model(z), y).sum(), z)
    return slope.flatten(1)


def _merged(
    x: Inputs, first: tuple[Tensor, AttackResult, Tensor], second: tuple[Tensor, AttackResult, Tensor]
) -> tuple[AttackResult, PerExample]:
    """Return the results of two searches on rows of x: those of the second where it ran, but the better point."""
    z, best = x.clone(), x.new_full((len(x),), -torch.inf)
    margin, finite = best.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    restart, forwards, backwards = torch.zeros_like(finite, dtype=torch.int64), 0, 0
    queries = restart.clone()
    for rows, result, margins in (first, second):
        better = margins > best[rows]
        z[rows[better]] = result.z[better]
        best[rows] = torch.maximum(best[rows], margins)
        margin[rows], finite[rows], restart[rows] = result.margin, result.finite, result.restart
        queries[rows] += 0 if result.queries is None else result.queries
        forwards += result.passes
        backwards += result.passes if result.backwards is None else result.backwards
    return AttackResult(z, margin, finite, restart, forwards, backwards, queries), best


def verify(
    model: Model, batch: Batch, z: Inputs, threat: Threat, batch_size: int, alone_up_to: float = TIE
) -> PerExample:
    """Return the margin at z from a fresh forward; -inf if z lies outside the threat set or a logit is not finite.

    A margin within `TIE` of 0 (or more, for large logits) could change its sign with the other examples in the batch,
    so margins from -`TIE` to `alone_up_to` are computed alone.
    """
    allowed = threat.contains(batch.x, z)
    inside = torch.where(allowed.view(-1, *[1] * (z.dim() - 1)), z, batch.x)
    margins = margin(padded_logits(model, inside, batch_size), batch.y)
    for row in ((margins >= -TIE) & (margins <= alone_up_to)).nonzero()[:, 0].tolist():
        margins[row] = margin(padded_logits(model, inside[row : row + 1], 1), batch.y[row : row + 1])[0]
    return torch.where(allowed & margins.isfinite(), margins, -torch.inf)
