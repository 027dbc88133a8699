"""The distance from each example to the nearest misclassified input: upper and lower bounds, and an estimate."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from unperturbed.anatomy.chain import Chain, chain
from unperturbed.anatomy.lower_bounds import log_lower_bound
from unperturbed.attacks.base import likely_targets
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.examinations.diagnostics.margins import output_margin
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.losses import margin, targeted_margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.statistics.per_example import described, distribution, missing_note, portion, sound
from unperturbed.threat import Threat
from unperturbed.types import Batch, Logits, Model, Norm, PerExample

EXAMPLES = 128
"""The number of examples, from the first: a search costs hundreds of passes per example."""
NORMS: tuple[Norm, ...] = ("Linf", "L2")
FIRST: Suite = Suite("first", (FAB(steps=20),), "upper bounds")
THEN: Suite = Suite("then", (GradientAttack("PGD", margin, PGD(steps=20)),), "upper bounds")
RADII, WITHIN = 8, 0.98
"""The number of quantiles of FAB's distances that are radii of PGD, and the factor that shrinks them."""
MOST_CLASSES = 100
"""The largest number of other classes in the estimate, those of largest logits."""
SLACK = 1e-4
"""The relative slack in comparisons of bounds, for rounding."""


def nearest(subject: Subject, batch: Batch, norm: Norm) -> PerExample:
    """Return the distance of the nearest known misclassified point in the box: an upper bound on the margin.

    0 if the example is misclassified (or tied), NaN if no point was found, or the logits are not finite. Every point
    was verified by a fresh forward. FAB searches first, then PGD just within FAB's distances, at radii spread like
    them.
    """
    first = _searched(subject, batch, norm, FIRST, (subject.threat.eps or 1.0,))
    away = first[(first > 0) & first.isfinite()].numpy()
    spread = [WITHIN * float(np.quantile(away, (k + 1) / RADII)) for k in range(RADII)] if len(away) else []
    second = _searched(subject, batch, norm, THEN, spread or (subject.threat.eps or 1.0,))
    return torch.fmin(first, second)


def _searched(subject: Subject, batch: Batch, norm: Norm, suite: Suite, radii: Sequence[float]) -> PerExample:
    distances = minimum_norm(
        subject.classifier,
        (batch.x.cpu(), batch.y.cpu()),
        Threat(norm, max(radii), subject.threat.bounds),
        suite,
        radii=radii,
        seed=subject.seed,
        batch_size=subject.batch_size,
    )
    distance = torch.tensor(distances.examples["distance"], dtype=torch.float64)
    evaluated = torch.tensor(distances.examples["clean_margin"]).isfinite()
    return torch.where(evaluated & distance.isfinite(), distance, torch.nan)


def first_order(model: Model, batch: Batch, norm: Norm, batch_size: int) -> PerExample:
    """Return min_j (f_y - f_j) / ‖grad (f_y - f_j)‖ in the dual norm: the margin of the network linearised at x.

    0 if that is negative. It is an estimate, not a bound, and ignores the box. NaN if a value is not finite, or no
    difference of logits has a gradient.
    """
    targets, threat = likely_targets(model, batch, MOST_CLASSES, batch_size), Threat(norm, 1.0)
    parts = []
    for rows in torch.split(torch.arange(len(batch.y), device=batch.x.device), batch_size):
        x, y, least = batch.x[rows].detach().requires_grad_(), batch.y[rows], torch.tensor(torch.inf)
        with torch.enable_grad():
            logits = model(x)
            leads = [-targeted_margin(logits, y, target) for target in targets[rows].T]
        wrong = ~logits.detach().isfinite().all(dim=1)
        for k, lead in enumerate(leads):
            (slope,) = torch.autograd.grad(lead.sum(), x, retain_graph=k + 1 < len(leads))
            length = threat.dual_norm(slope).double()
            wrong |= ~length.isfinite()
            value = lead.detach().double().clamp(min=0) / length
            flat = torch.where(lead.detach() > 0, torch.inf, 0.0).to(value)
            least = torch.minimum(least.to(value), torch.where(length > 0, value, flat))
        parts.append(torch.where(wrong | least.isinf(), torch.nan, least))
    return torch.cat(parts)


def instance_margins(subject: Subject) -> Finding:
    """Distance from each test example to the nearest misclassified input: bounds from both sides and an estimate.

    In Linf and L2, for the first 128 test examples (instance-space margin of Wen, Li & Jia 2020,
    https://arxiv.org/abs/2011.07478). The upper bound is the distance of a verified misclassified point; the lower
    bound is proved, if the network is a chain of layers; the first-order estimate is not a bound.
    """
    first = slice(EXAMPLES)
    batch = Batch(subject.test.x[first], subject.test.y[first], subject.test.ids[first])
    of = chain(subject.classifier, batch.x[:1])
    parts = [_in_norm(subject, batch, norm, of) for norm in NORMS]
    notes = [
        f"The first {len(batch.y)} of {len(subject.test.y)} test examples; misclassified ones have margin 0.",
        "Upper bounds: FAB and PGD, 20 steps each, and bisection of the line to their points. Every point lies in the "
        "box and was misclassified by a fresh forward.",
        "First-order estimates hold for the network linearised at the example, without the box: they are no bounds.",
    ]
    if subject.classes - 1 > MOST_CLASSES:
        notes.append(f"Estimates look at the {MOST_CLASSES} other classes of largest logits.")
    if isinstance(of, str):
        notes.append(f"No lower bound: {of}.")
    else:
        notes.append(
            "Lower bounds are those of exact arithmetic, without the box, and given for correct examples only."
        )
        parts.append(_spectral(subject, batch, of))
    return Finding(
        "Instance margins",
        " ".join(part.summary for part in parts if part.summary),
        tuple(number for part in parts for number in part.numbers),
        tuple(values for part in parts for values in part.distributions),
        notes=(*notes, *(note for part in parts for note in part.notes)),
    )


def _in_norm(subject: Subject, batch: Batch, norm: Norm, of: Chain | str) -> Finding:
    logits = sound(subject.test_logits[: len(batch.y)]).cpu()
    right = margin(logits, batch.y.cpu()) < 0
    with under_attack(subject.classifier), as_reported(batch.x.device):
        guess = first_order(subject.classifier, batch, norm, subject.batch_size).cpu()
    upper_bound = nearest(subject, batch, norm)
    upper = distribution(f"instance margin, upper bound, {norm}", upper_bound, batch.ids)
    estimate = distribution(f"instance margin, first-order estimate, {norm}", guess, batch.ids)
    numbers, notes = [*described(upper), *described(estimate)], [*_not_found(upper, logits), *missing_note(estimate)]
    known = upper_bound[right & upper_bound.isfinite()].tolist()
    if known:
        numbers.append(
            Number(f"instance margin, upper bound, {norm}: smallest of correct (v_min)", min(known), len(known))
        )
    if norm == subject.threat.norm and subject.threat.shares is None:
        within, eps = sum(value <= subject.threat.eps for value in upper.values), subject.threat.eps
        n = int(logits.isfinite().all(dim=1).sum())
        numbers += portion(f"instance margin, upper bound, {norm}: share within eps", within, n)
        notes.append(
            f"{norm}: eps is {eps:g}. The share within it counts misclassified examples, and those without a point "
            "found as beyond it: a lower bound."
        )

    slack = SLACK * upper_bound + Threat(norm, 1.0).rounding(batch.x).cpu()
    comparable = right & upper_bound.isfinite() & guess.isfinite()
    above = int((guess[comparable] > (upper_bound + slack)[comparable]).sum())
    numbers.append(_count(f"instance margin, {norm}: estimate above upper bound", above, int(comparable.sum())))
    sentence = f"{norm}: no misclassified point was found near a correct example."
    if known:
        sentence = (
            f"{norm}: the median margin of {len(known)} correct examples is at most {np.median(known):.4g}, the "
            f"smallest at most {min(known):.4g}; the first-order estimate exceeds the upper bound for {above} of "
            f"{int(comparable.sum())}."
        )
        lacking = int((right & upper_bound.isnan()).sum())
        sentence += f" No misclassified point was found for {lacking} more." if lacking else ""
    if isinstance(of, str):
        return Finding(norm, sentence, tuple(numbers), (upper, estimate), notes=tuple(notes))

    log_least = log_lower_bound(of, logits, batch.y.cpu(), norm, batch.x)
    least = log_least.exp().clamp(min=torch.finfo(torch.float64).tiny)  # an exponent of -800 cannot be drawn
    lower = distribution(f"instance margin, lower bound, {norm}", least[right], batch.ids.cpu()[right], log=True)
    comparable = right & upper_bound.isfinite() & log_least.isfinite()
    crossed = int((least[comparable] > (upper_bound + slack)[comparable]).sum())
    lost = int((least[comparable] < Threat(norm, 1.0).rounding(batch.x).cpu()[comparable]).sum())
    numbers += [
        *described(lower),
        _count(f"instance margin, {norm}: lower above upper bound", crossed, int(comparable.sum())),
    ]
    numbers.append(_count(f"instance margin, {norm}: lower bound below float32 rounding", lost, int(comparable.sum())))
    notes += missing_note(lower)
    if comparable.any():
        ratio = float(((upper_bound.log() - log_least)[comparable] / math.log(10)).quantile(0.5))
        name = f"instance margin, {norm}: log10 of upper over lower bound, median"
        numbers.append(Number(name, ratio, int(comparable.sum())))
        sentence += " " + _verdict(ratio, crossed, lost, int(comparable.sum()))
    return Finding(norm, sentence, tuple(numbers), (upper, estimate, lower), notes=tuple(notes))


def _not_found(upper: Distribution, logits: Logits) -> tuple[str, ...]:
    """Return a sentence on the examples without an upper bound, if there are any."""
    if upper.missing == 0:
        return ()
    broken = int((~logits.isfinite().all(dim=1)).sum())
    return (
        f"{upper.name}: {upper.missing} of {len(logits)} examples left out, {broken} with logits that are not finite, "
        f"{upper.missing - broken} without a misclassified point found; with these the quantiles would be larger.",
    )


def _verdict(ratio: float, crossed: int, lost: int, n: int) -> str:
    """Return a sentence on the tightness of the lower bound, from the median of log10 (upper / lower)."""
    if crossed:
        return (
            f"ERROR: for {crossed} of {n} examples the proven lower bound lies ABOVE the distance of a misclassified "
            "point that was found. One of the two is wrong: trust neither, and report this."
        )
    factor = f"a factor of {10**ratio:.3g}" if ratio < 6 else f"a factor of 10^{ratio:.0f}"
    if 2 * lost > n:
        return f"The proven lower bound is {factor} smaller, less than float32 resolves: it is vacuous."
    if ratio >= 1:
        return f"The proven lower bound is {factor} smaller: as a statement on these margins it is vacuous."
    return f"The proven lower bound is within {factor} of the upper one."


def log_spectral(of: Chain) -> float:
    """Return the log of prod s_max, a Lipschitz constant of the logits in L2; -inf if they are constant."""
    largest = float(torch.linalg.matrix_norm(of.head.detach().double(), 2))
    return of.log_lipschitz["L2"] + (math.log(largest) if largest > 0 else -math.inf)


def _spectral(subject: Subject, batch: Batch, of: Chain) -> Finding:
    """Return o(x) / prod s_max, a lower bound in L2 that is never above that by the rows of the head."""
    score = output_margin(subject.test_logits[: len(batch.y)], batch.y).cpu()
    right = score > 0
    value = (score[right].log() - log_spectral(of)).exp()
    name = "output margin over the product of largest singular values, L2"
    values = distribution(name, value.clamp(min=torch.finfo(torch.float64).tiny), batch.ids.cpu()[right], log=True)
    return Finding("", "", described(values), (values,), notes=missing_note(values))


def _count(name: str, count: int, n: int) -> Number:
    return Number(name, float(count), n, unit="examples")
