"""The covering-number bound on the generalisation gap of a network."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.anatomy.chain import chain
from unperturbed.examinations.diagnostics.instance_margins import log_spectral, nearest
from unperturbed.examinations.diagnostics.margins import output_margin
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.statistics.per_example import sound
from unperturbed.types import Batch, Inputs, Logits, PerExample

ETA = 0.05
"""The bound holds with probability 1 - eta."""
SEARCHED = 32
"""Number of training examples of smallest output margin in the search for v_min."""
COVERED = 1000
"""The largest number of training examples for pairwise distances."""
NEIGHBOURS = 20
"""Number of nearest neighbours in the estimate of the intrinsic dimension."""
VACUOUS = "is 1 or more, the largest difference of such losses: vacuous"


def log10_covering_term(log10_cells: float, classes: int, m: int, eta: float) -> float:
    """Return log10 of sqrt((2 |Y| N ln 2 + 2 ln(1 / eta)) / m), N = 10^log10_cells.

    (Xu & Mannor 2012, https://arxiv.org/abs/1005.2243, with K = |Y| N cells and losses within [0, 1].)
    """
    first = math.log(2 * classes * math.log(2)) + log10_cells * math.log(10)
    second = math.log(2 * math.log(1 / eta))
    total = max(first, second) + math.log1p(math.exp(-abs(first - second)))
    return (total - math.log(m)) / 2 / math.log(10)


def ramp_term(least: float, gamma: float) -> float:
    """Return max{0, 1 - u_min / gamma}, at most 1: an upper bound on the ramp loss in a cell of a training example."""
    return min(1.0, max(0.0, 1 - least / gamma))


def packing_number(x: Inputs, r: float) -> int:
    """Return the number of examples in a greedy choice of points further than r apart, in L2.

    A ball of radius r / 2 holds at most one of them, so that the number is a lower bound on N(X, r / 2).
    """
    flat, chosen = x.flatten(1).double(), list[int]()
    away = torch.full((len(flat),), torch.inf, dtype=torch.float64, device=flat.device)
    for row in range(len(flat)):
        if away[row] > r:
            chosen.append(row)
            away = torch.minimum(away, (flat - flat[row]).norm(dim=1))
    return len(chosen)


def intrinsic_dimension(x: Inputs, neighbours: int = NEIGHBOURS) -> float:
    """Return the maximum-likelihood estimate of the examples' intrinsic dimension k, from distances in L2.

    1 / k is the mean over examples and j < K of ln(T_K / T_j), T_j the distance of the j-th nearest neighbour (Levina &
    Bickel 2004, eq. 8; averaged over its inverse, as MacKay & Ghahramani 2005 derive). Copies of another example are
    left out. NaN if fewer than three different examples remain, or all neighbours are equally far.
    """
    flat = torch.unique(x.flatten(1).double(), dim=0)
    neighbours = min(neighbours, len(flat) - 1)
    if neighbours < 2:
        return math.nan
    near = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values
    logs = near[:, 1 : neighbours + 1].log()
    inverse = float((logs[:, -1:] - logs[:, :-1]).mean())
    return 1 / inverse if inverse > 0 else math.nan


@dataclass(frozen=True)
class Cover:
    """The number of balls that cover the inputs, estimated from the training examples, and the resulting bounds.

    Attributes:
        proved: log10 of the bound on the 0-1 gap with the packing number: the true bound is no smaller.
        proxy: the same with (C / r)^k; None if k or C is unknown.
        numbers: the shown numbers.
        notes: the proved statements and the proxies.
    """

    proved: float
    proxy: float | None
    numbers: tuple[Number, ...]
    notes: tuple[str, ...]


def covering_bound(subject: Subject, train: Batch) -> Finding:
    """Return the covering-number bound with its constants, or the reason for its absence."""
    logits = sound(subject.train_logits).cpu()
    rows = logits.isfinite().all(dim=1).nonzero()[:COVERED, 0]
    m, classes = len(rows), subject.classes
    if m < 2:
        return Finding("", "There is no bound: fewer than two training examples have finite logits.")
    logits, examples = logits[rows], _rows(train, rows)
    r = _smallest_margin(subject, examples, logits)
    k, diameter = intrinsic_dimension(examples.x), _diameter(examples.x)
    numbers = [
        Number("bound: m", m, m, unit="examples"),
        Number("bound: eta", ETA, m),
        Number("bound: |Y|", classes, m, unit="classes"),
        Number("bound: diameter C of the training examples, L2", diameter, m),
        *([Number("bound: intrinsic dimension k", k, m)] if k == k else []),
    ]
    note = (
        "Bound on R - R_emp, for losses within [0, 1], with probability 1 - eta: max{0, 1 - u_min / gamma} (ramp loss, "
        "at most 1) or 0 (0-1 loss), plus sqrt((2 |Y| N(X, r / 2) ln 2 + 2 ln(1 / eta)) / m). Proved for r and gamma "
        "fixed before the data are drawn, with R_emp the loss on these m independent training examples."
    )
    if not r > 0:
        reason = "has v_min 0" if r == 0 else "has no v_min: no other prediction was found near any example"
        return Finding("", f"There is no bound: the network {reason}.", tuple(numbers), notes=(note,))
    cover = _cover(examples.x, r, k, diameter, classes)
    ramp = _ramp(subject, examples, output_margin(logits, examples.y.cpu()), r, cover)
    return Finding(
        "",
        f"{_verdict(cover.proved, cover.proxy)} {ramp.summary}",
        (*numbers, *cover.numbers, *ramp.numbers),
        notes=(note, *cover.notes, *ramp.notes),
    )


def _cover(x: Inputs, r: float, k: float, diameter: float, classes: int) -> Cover:
    """Return the number of balls of radius r / 2 that cover the inputs: a lower bound, and by the intrinsic dimension
    k."""
    m, cells = len(x), packing_number(x, r)
    proved = log10_covering_term(math.log10(cells), classes, m, ETA)
    numbers = (
        Number("bound: r = v_min, L2, upper bound", r, min(SEARCHED, m)),
        Number("bound: N(X, r / 2), at least (packing number)", cells, m),
        Number("bound: log10 of the 0-1 gap, N at least", proved, m),
    )
    notes = (
        "r is v_min, the smallest distance in L2 from a training example to another prediction. A proxy: it is read "
        f"off the data, and known only as an upper bound, by a search around the {min(SEARCHED, m)} training examples "
        "of smallest output margin. The true v_min is no larger, which makes N and the bound larger, not smaller.",
        f"N(X, r / 2), at least: training examples further than r apart, chosen greedily, {cells} of {m}. It is a "
        "proved lower bound on the number of balls; unseen inputs may need more. So if the bound with it is vacuous, "
        "the true bound is; if not, nothing is proved.",
        "The bound on the 0-1 gap also needs that the prediction is constant within r of every training example, which "
        "holds up to the true v_min.",
    )
    if not (k == k and diameter > 0):
        return Cover(proved, None, numbers, notes)
    log_cells = max(k * math.log10(diameter / r), math.log10(cells))
    proxy = log10_covering_term(log_cells, classes, m, ETA)
    by_dimension = (
        Number("bound: log10 N(X, r / 2), proxy (C / r)^k", log_cells, m),
        Number("bound: log10 of the 0-1 gap, proxy", proxy, m),
    )
    note = (
        f"N(X, r / 2), proxy: (C / r)^k, at least the packing number. C is the largest distance between training "
        f"examples; k is estimated from the distances of {min(NEIGHBOURS, m - 1)} nearest neighbours (Levina & "
        "Bickel 2004), too low if the examples are few for their dimension. It is not proved."
    )
    return Cover(proved, proxy, (*numbers, *by_dimension), (*notes, note))


def _ramp(subject: Subject, examples: Batch, score: PerExample, r: float, cover: Cover) -> Finding:
    """Return what the ramp loss adds: Lam, u_min, gamma, and the bounds."""
    of, m = chain(subject.classifier, examples.x[:1]), len(score)
    if isinstance(of, str):
        return Finding("", "", notes=(f"No bound on the ramp loss, which needs prod s_max: {of}.",))
    gamma = float(score.quantile(0.5))
    log_lam = log_spectral(of)
    if log_lam == -math.inf:
        return Finding("", "", notes=("No bound on the ramp loss: prod s_max is 0, and the logits are constant.",))
    numbers = [
        Number("bound: log10 Lam, Lam = prod s_max", log_lam / math.log(10), m),
        Number("bound: smallest output margin", float(score.min()), m, unit="logits"),
        Number("bound: gamma, median output margin", gamma, m, unit="logits"),
    ]
    notes = [
        "Lam = prod s_max bounds the Lipschitz constant of the logits in L2: proved. u_min = min o(x) - Lam r, with r "
        "as above. gamma is the median output margin of the training examples, read off the data: a proxy.",
    ]
    if log_lam + math.log(r) > 700 or not gamma > 0:
        text = "u_min is below the range of floats" if gamma > 0 else "gamma is not positive"
        return Finding("", "", tuple(numbers), notes=(*notes, f"Bound on the ramp loss: {text}, vacuous."))
    least = float(score.min()) - math.exp(log_lam) * r
    first = ramp_term(least, gamma)
    numbers += [
        Number("bound: u_min", least, m, unit="logits"),
        Number("bound: first term, max{0, 1 - u_min / gamma}", first, m),
        Number("bound: log10 of the ramp gap, N at least", _log10_sum(first, cover.proved), m),
    ]
    if cover.proxy is not None:
        numbers.append(Number("bound: log10 of the ramp gap, proxy", _log10_sum(first, cover.proxy), m))
    text = f"For the ramp loss, max{{0, 1 - u_min / gamma}} = {first:.3g} is added"
    text += ": vacuous, since u_min is not positive." if first >= 1 else "."
    return Finding("", text, tuple(numbers), notes=tuple(notes))


def _log10_sum(first: float, log10_second: float) -> float:
    """Return log10(first + 10^log10_second)."""
    if first == 0:
        return log10_second
    a, b = math.log10(first), log10_second
    return max(a, b) + math.log1p(10 ** -abs(a - b)) / math.log(10)


def _verdict(proved: float, proxy: float | None) -> str:
    if proved >= 0:
        return f"The covering-number bound on the 0-1 gap is at least 10^{proved:.1f}: it {VACUOUS}, for certain."
    if proxy is not None and proxy >= 0:
        return f"By the proxy the covering-number bound on the 0-1 gap is 10^{proxy:.1f}: it {VACUOUS}."
    value = proved if proxy is None else proxy
    text = f"The covering-number bound on the 0-1 gap would be {10**value:.2g}"
    return f"{text} if the proxies in it held; that is not proved."


def _smallest_margin(subject: Subject, examples: Batch, logits: Logits) -> float:
    """Return the smallest L2 distance from a training example to another prediction; NaN if none was found."""
    best = logits.topk(2, dim=1).values
    closest = (best[:, 0] - best[:, 1]).argsort(stable=True)[:SEARCHED]
    part = _rows(examples, closest)
    part = Batch(part.x, logits[closest].argmax(dim=1).to(part.y.device), part.ids)
    distances = nearest(subject, part, "L2")
    distances = distances[distances.isfinite()]
    return float(distances.min()) if len(distances) else math.nan


def _diameter(x: Inputs) -> float:
    flat = x.flatten(1).double()
    return float(torch.cdist(flat, flat).max())


def _rows(batch: Batch, rows: Tensor) -> Batch:
    rows = rows.to(batch.x.device)
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows.to(batch.ids.device)])
