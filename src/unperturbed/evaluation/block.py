"""One block of examples under a suite: attack after attack, each on what still stands, every success verified."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.evidence import Evidence
from unperturbed.findings import Verdict
from unperturbed.losses import margin
from unperturbed.maximise.places import part_of_search
from unperturbed.maximise.slopes import noticing
from unperturbed.networks.failures import failed_on, failed_on_all, isolate, within_memory
from unperturbed.networks.modes import own_randomness
from unperturbed.networks.rounding import rounding
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Model, PerExample

TIE = 1e-4
"""A final margin this close to 0 is counted as a tie: float32 rounding at another batch size may turn it."""
_REACH = 4.0
"""A margin within this many root mean squares of what rounding did to the others may be rounding's doing."""

_ALIKE = 0.9
"""Cosine between gradients above which a search in lower precision climbs where the network does."""
_ROUGH = 0.8
"""The share of an attack that its search in lower precision counts as, for whoever watches."""


@dataclass(eq=False)
class Networks:
    """One network as results are computed with it and as searches run it, and how many examples it sees at a time."""

    reported: Model
    searched: Model
    """In the same precision, perhaps with images laid out in a faster way."""
    rough: Model | None
    """In bfloat16, where that is faster still."""
    places: int
    """Halved where memory runs out."""

    def rounding(self, examples: Inputs) -> dict[str, bool | str | None]:
        """Return whether rows are rounded alike by all of them, as part of a result's environment."""
        every = (self.reported, self.searched, self.rough)
        return rounding([network for network in every if network is not None], examples, self.places)


@dataclass
class Tally:
    """What one attack has done in a block."""

    broken: int = 0
    broken_last: int = 0
    """Of those, by the last climb allowed: more would break more."""
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    replaced: bool = False
    """Whether a gradient on the way was not finite."""


@dataclass(eq=False)
class Block:
    """What is known of a block of examples, a row an example; the attacks fill it in."""

    batch: Batch
    prediction: Labels
    clean_margin: PerExample
    z: Inputs
    """The point of largest verified margin."""
    margin: PerExample
    """There."""
    finite: Tensor
    """Bool: whether everything computed so far was finite."""
    standing: Tensor
    """Bool: correct, and not broken so far."""
    refuted: Tensor
    """Bool: whether an attack claimed a break that a fresh forward did not confirm."""
    broken_by: Labels
    """The number of the attack that broke the example, or -1."""
    restart: Labels
    """Climbs that the last attack on the example took."""
    queries: Labels
    """Forwards that the attacks took for the example, up to its break."""
    unlike: Tensor
    """Bool: whether gradients in lower precision were seen to be others than the network's."""
    tallies: list[Tally] = field(default_factory=list)
    """One for each attack that has run."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """How gradients behaved, once the attacks are done."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts.

        Only what was correct wherever it was looked at has survived: where the logits tied, a value was not finite, or
        a fresh forward gave another answer than the attack saw, nobody knows.
        """
        sound = self.finite & ~self.refuted & ~(self.standing & (self.margin >= 0))
        return [
            "broken" if attack >= 0 else "unknown" if not sound else "survived" if standing else "misclassified"
            for attack, sound, standing in zip(
                self.broken_by.tolist(), sound.tolist(), self.standing.tolist(), strict=True
            )
        ]

    def table(self, threat: Threat, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        labels = [attack.label for attack in suite.attacks] + [""]  # -1 is the last
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "verdict": list(self.verdicts()),
            "attack": [labels[number] for number in self.broken_by.tolist()],
            "restart": self.restart.tolist(),
            "queries": self.queries.tolist(),
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": threat.distance(self.batch.x, self.z).tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the perturbed inputs of the broken examples."""
        return self.z[self.broken_by >= 0]


def untouched(model: Model, batch: Batch, places: int, seed: int) -> Block:
    """Return the block before any attack. A tie of the logits is not a correct classification."""

    def clean_logits(rows: Labels) -> Logits:
        return within_memory(lambda few: padded_logits(model, batch.x[rows], few), places)[0]

    with _draws_of(seed, batch, -1):
        parts, failures = isolate(clean_logits, torch.arange(len(batch.y)))
    if not parts:
        raise failed_on_all(failures)
    logits: Logits = torch.full((len(batch.y), parts[0][1].shape[1]), torch.nan).to(batch.x)
    for rows, values in parts:
        logits[rows] = values
    finite = logits.isfinite().all(dim=1)
    clean = torch.where(finite, margin(logits, batch.y), torch.nan)
    return Block(
        batch=batch,
        prediction=logits.argmax(dim=1),
        clean_margin=clean,
        z=batch.x.clone(),
        margin=clean.clone(),
        finite=finite,
        standing=finite & (clean < 0),
        refuted=torch.zeros_like(finite),
        broken_by=torch.full_like(batch.y, -1),
        restart=torch.zeros_like(batch.y),
        queries=torch.zeros_like(batch.y),
        unlike=torch.zeros_like(finite),
        warnings=failed_on(failures, batch.ids, "the forward"),
    )


def attack_block(networks: Networks, block: Block, threat: Threat, suite: Suite, seed: int) -> None:
    """Run the suite's next attack on what still stands, verify what it found, and enter both into the block."""
    number = len(block.tallies)
    attack, tally, began = suite.attacks[number], Tally(), time.perf_counter()
    rows = block.standing.nonzero()[:, 0]
    if len(rows) > 0:
        noise = Noise.of(seed, block.batch.ids).fold(number)
        with _draws_of(seed, block.batch, number), noticing() as replaced:
            parts, failures = isolate(lambda some: _attacked(networks, block, some, attack, threat, noise), rows)
        tally.replaced = replaced.any
        for some, (found, margins, unlike) in parts:
            block.unlike[some] = unlike
            block.warnings += found.warnings
            _enter(block, some, found, margins, number, attack, tally)
        block.finite[list(failures)] = False
        block.warnings += failed_on(failures, block.batch.ids, attack.label)
        if len(parts) > 1 and not failures:
            block.warnings.append(
                f"{attack.label} failed on {len(rows)} examples together, and ran on fewer at a time."
            )
    tally.seconds = time.perf_counter() - began
    block.tallies.append(tally)


def _draws_of(seed: int, batch: Batch, number: int) -> AbstractContextManager[None]:
    """Give a network that draws random numbers the same ones each time this attack runs on this block."""
    return own_randomness(int(Noise.of(seed, batch.ids[:1]).fold(number).keys), batch.x.device)


def _attacked(
    networks: Networks, block: Block, rows: Labels, attack: Attack, threat: Threat, noise: Noise
) -> tuple[AttackResult, PerExample, Tensor]:
    """Return what the attack found for these rows, the verified margins there, and what `unlike` is for them now.

    A search in lower precision is repeated in full where it claimed what does not hold, where it came so close to a
    break that rounding may have hidden one, and where its gradients are not those of the network (saturated units round
    to flat ones, and then nothing moves). Where the latter was seen once, every later search is in full.
    """
    whole = block.batch

    def search(model: Model, some: Labels) -> tuple[AttackResult, PerExample]:
        batch = Batch(whole.x[some], whole.y[some], whole.ids[some])

        def run(places: int) -> tuple[AttackResult, PerExample]:
            found = attack(model, batch, threat, noise.rows(some), places)
            margins = verify(networks.reported, batch, found.z, threat, places, alone_up_to=torch.inf)
            not_finite = margins.isneginf() & threat.contains(batch.x, found.z)
            return replace(found, finite=found.finite & ~not_finite), margins

        result, networks.places = within_memory(run, networks.places)
        return result

    def slopes_agree(z: Inputs, some: Labels) -> Tensor:
        agree, networks.places = within_memory(
            lambda places: _slopes_agree(networks, z, whole.y[some], places), networks.places
        )
        return agree

    unlike = block.unlike[rows]
    if networks.rough is None or not attack.bears_rounding:
        return (*search(networks.searched, rows), unlike)
    like = (~unlike).nonzero()[:, 0]
    unlike[like] = ~slopes_agree(whole.x[rows[like]], rows[like])
    tried = (~unlike).nonzero()[:, 0]
    if len(tried) == 0:
        return (*search(networks.searched, rows), unlike)
    with part_of_search(0.0, _ROUGH):
        found, margins = search(networks.rough, rows[tried])
    off = (found.margin - margins)[found.margin.isfinite() & margins.isfinite()]
    near = _REACH * float(off.square().mean().sqrt()) if len(off) else 0.0
    standing = margins <= 0
    unlike[tried] = standing & ~slopes_agree(found.z, rows[tried])
    settled = standing & (found.margin <= 0) & (margins <= -near) & found.finite & ~unlike[tried]
    again = torch.ones_like(unlike).index_put((tried,), standing & ~settled).nonzero()[:, 0]
    if len(again) == 0:
        return found, margins, unlike
    with part_of_search(_ROUGH, 1.0, int((~standing).sum())):
        second, others = search(networks.searched, rows[again])
    return (*_merged(whole.x[rows], (tried, found, margins), (again, second, others)), unlike)


def _slopes_agree(networks: Networks, z: Inputs, y: Labels, places: int) -> Tensor:
    """Tell per example whether the margin's gradient points the same way in the rough network as in full precision.

    A gradient of 0 points nowhere: a search that ends there has not seen what the rough network is like elsewhere.
    """
    agree = [torch.zeros(0, dtype=torch.bool, device=z.device)]
    for some in torch.split(torch.arange(len(z), device=z.device), places) if len(z) else ():
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


def _enter(
    block: Block, rows: Labels, found: AttackResult, margins: PerExample, number: int, attack: Attack, tally: Tally
) -> None:
    """Enter what an attack found for these rows, with the verified margins, into block and tally."""
    broken = margins > 0
    refuted = (found.margin > 0) & ~broken
    better = margins > block.margin[rows]
    block.margin[rows[better]], block.z[rows[better]] = margins[better], found.z[better]
    block.restart[rows] = found.restart
    block.queries[rows] += 0 if found.queries is None else found.queries
    block.finite[rows[~found.finite]] = False
    block.refuted[rows[refuted]] = True
    block.standing[rows[broken]] = False
    block.broken_by[rows[broken]] = number

    tally.broken += int(broken.sum())
    if attack.restarts > 1:
        tally.broken_last += int((broken & (found.restart == attack.restarts)).sum())
    tally.unverified += int(refuted.sum())
    tally.forwards += found.passes
    tally.backwards += found.passes if found.backwards is None else found.backwards


def verify(model: Model, batch: Batch, z: Inputs, threat: Threat, places: int, alone_up_to: float = TIE) -> PerExample:
    """Return the margin at z from a fresh forward; -inf where z lies outside the threat set or nothing finite came.

    A margin within `TIE` of 0 could turn with the company in the batch (and larger ones where logits are large), so
    those from -`TIE` to `alone_up_to` are computed alone.
    """
    allowed = threat.contains(batch.x, z)
    inside = torch.where(allowed.view(-1, *[1] * (z.dim() - 1)), z, batch.x)
    margins = margin(padded_logits(model, inside, places), batch.y)
    for row in ((margins >= -TIE) & (margins <= alone_up_to)).nonzero()[:, 0].tolist():
        margins[row] = margin(padded_logits(model, inside[row : row + 1], 1), batch.y[row : row + 1])[0]
    return torch.where(allowed & margins.isfinite(), margins, -torch.inf)
