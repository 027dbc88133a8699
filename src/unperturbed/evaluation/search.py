"""One attack on some examples, searched in lower precision where that is faster, and verified in full."""

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
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import InPrecision, choose
from unperturbed.networks.rounding import rounding
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

TIE = 1e-4
"""A final margin this close to 0 is counted as a tie: float32 rounding at another batch size may turn it."""
_REACH = 4.0
"""A margin within this many root mean squares of what rounding did to the others may be rounding's doing."""

_ALIKE = 0.9
"""Cosine between gradients above which a search in lower precision climbs where the network does."""
_ROUGH = 0.8
"""The share of an attack that its search in lower precision counts as, in reported progress."""


@dataclass(eq=False)
class Networks:
    """One network as results are computed with it and as searches run it, and how many examples it sees at a time."""

    reported: Model
    searched: Model
    """In the same precision, perhaps with images laid out in a faster way."""
    rough: Model | None
    """In bfloat16, where that is faster still."""
    batch_size: int
    """Halved where memory runs out."""

    def rounding(self, examples: Inputs) -> dict[str, bool | str | None]:
        """Return whether rows are rounded alike by all of them, as part of a result's environment."""
        every = (self.reported, self.searched, self.rough)
        return rounding([network for network in every if network is not None], examples, self.batch_size)


def as_searched(checked_model: CheckedModel, precision: Literal["auto", "32"], batch_size: int) -> Networks:
    """Return the network as results are computed with it and as searches run it: where that is faster and works."""
    classifier, some = checked_model.classifier, checked_model.examples
    chosen = choose("auto", classifier, checked_model.device)
    if checked_model.dtype != torch.float32 or chosen.autocast is None:
        return Networks(classifier, classifier, None, batch_size)
    searched = InPrecision(classifier, memory_format=chosen.memory_format)
    rough = InPrecision(classifier, chosen.autocast, memory_format=chosen.memory_format)
    try:
        with under_attack(classifier), own_randomness(0, checked_model.device), torch.enable_grad():
            x = some[:1].clone().requires_grad_()
            logits = rough(x)
            (slope,) = torch.autograd.grad(logits.sum(), x)
            sound = bool(logits.isfinite().all() and slope.isfinite().all())
    except Exception:  # an operation that does not know bfloat16
        sound = False
    return Networks(classifier, searched, rough if sound and precision == "auto" else None, batch_size)


def search(
    networks: Networks, whole: Batch, rows: Labels, unlike: Tensor, attack: Attack, threat: Threat, noise: Noise
) -> tuple[AttackResult, PerExample, Tensor]:
    """Return what an attack found for these rows of a batch, the verified margins there, and what `unlike` is now.

    `unlike` says for which of the rows gradients in lower precision were seen to be others than the network's.

    A search in lower precision is repeated in full where it claimed what does not hold, where it came so close to a
    break that rounding may have hidden one, and where its gradients are not those of the network (saturated units round
    to flat ones, and then nothing moves). Where the latter was seen once, every later search is in full.
    """

    def look(model: Model, some: Labels) -> tuple[AttackResult, PerExample]:
        batch = Batch(whole.x[some], whole.y[some], whole.ids[some], z=whole.z[some])

        def run(batch_size: int) -> tuple[AttackResult, PerExample]:
            found = attack(model, batch, threat, noise.rows(some), batch_size)
            margins = verify(networks.reported, batch, found.z, threat, batch_size, alone_up_to=torch.inf)
            not_finite = margins.isneginf() & threat.contains(batch.x, found.z)
            return replace(found, finite=found.finite & ~not_finite), margins

        result, networks.batch_size = within_memory(run, networks.batch_size)
        return result

    def slopes_agree(z: Inputs, some: Labels) -> Tensor:
        agree, networks.batch_size = within_memory(
            lambda batch_size: _slopes_agree(networks, z, whole.y[some], batch_size), networks.batch_size
        )
        return agree

    unlike = unlike.clone()
    if networks.rough is None or not attack.bears_rounding:
        return (*look(networks.searched, rows), unlike)
    like = (~unlike).nonzero()[:, 0]
    unlike[like] = ~slopes_agree(whole.x[rows[like]], rows[like])
    tried = (~unlike).nonzero()[:, 0]
    if len(tried) == 0:
        return (*look(networks.searched, rows), unlike)
    with part_of_search(0.0, _ROUGH):
        found, margins = look(networks.rough, rows[tried])
    off = (found.margin - margins)[found.margin.isfinite() & margins.isfinite()]
    near = _REACH * float(off.square().mean().sqrt()) if len(off) else 0.0
    standing = margins <= 0
    unlike[tried] = standing & ~slopes_agree(found.z, rows[tried])
    settled = standing & (found.margin <= 0) & (margins <= -near) & found.finite & ~unlike[tried]
    again = torch.ones_like(unlike).index_put((tried,), standing & ~settled).nonzero()[:, 0]
    if len(again) == 0:
        return found, margins, unlike
    with part_of_search(_ROUGH, 1.0, int((~standing).sum())):
        second, others = look(networks.searched, rows[again])
    return (*_merged(whole.x[rows], (tried, found, margins), (again, second, others)), unlike)


def _slopes_agree(networks: Networks, z: Inputs, y: Labels, batch_size: int) -> Tensor:
    """Tell per example whether the margin's gradient points the same way in the rough network as in full precision.

    A gradient of 0 points nowhere: a search that ends there has not seen what the rough network is like elsewhere.
    """
    agree = [torch.zeros(0, dtype=torch.bool, device=z.device)]
    for some in torch.split(torch.arange(len(z), device=z.device), batch_size) if len(z) else ():
        rough, full = (_slope(model, z[some], y[some]) for model in (networks.rough, networks.searched))
        cosine = functional.cosine_similarity(rough.double(), full.double(), eps=1e-300)
        agree.append(cosine > _ALIKE)
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
    """Return the results of two searches on rows of x: what the second one says where it ran, but the better point."""
    z, best = x.clone(), x.new_full((len(x),), -torch.inf)
    margin, finite = best.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    restart, forwards, backwards = torch.zeros_like(finite, dtype=torch.int64), 0, 0
    queries = restart.clone()
    for rows, found, margins in (first, second):
        better = margins > best[rows]
        z[rows[better]] = found.z[better]
        best[rows] = torch.maximum(best[rows], margins)
        margin[rows], finite[rows], restart[rows] = found.margin, found.finite, found.restart
        queries[rows] += 0 if found.queries is None else found.queries
        forwards += found.passes
        backwards += found.passes if found.backwards is None else found.backwards
    return AttackResult(z, margin, finite, restart, forwards, backwards, queries), best


def verify(
    model: Model, batch: Batch, z: Inputs, threat: Threat, batch_size: int, alone_up_to: float = TIE
) -> PerExample:
    """Return the margin at z from a fresh forward; -inf where z lies outside the threat set or nothing finite came.

    A margin within `TIE` of 0 could turn with the company in the batch (and larger ones where logits are large), so
    those from -`TIE` to `alone_up_to` are computed alone.
    """
    allowed = threat.contains(batch.x, z)
    inside = torch.where(allowed.view(-1, *[1] * (z.dim() - 1)), z, batch.x)
    margins = margin(padded_logits(model, inside, batch_size), batch.y)
    for row in ((margins >= -TIE) & (margins <= alone_up_to)).nonzero()[:, 0].tolist():
        margins[row] = margin(padded_logits(model, inside[row : row + 1], 1), batch.y[row : row + 1])[0]
    return torch.where(allowed & margins.isfinite(), margins, -torch.inf)
