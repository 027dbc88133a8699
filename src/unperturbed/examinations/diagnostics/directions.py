"""The directional uniformity of each block's Jacobian, and the spread of its singular values."""

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from unperturbed.anatomy.blocks import Block, blocks, features
from unperturbed.curvature.products import tangents
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Line
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average, distribution, missing_note
from unperturbed.types import Inputs, Model, PerExample

EXAMPLES = 64
DIRECTIONS = 64
"""Number of random unit directions per example."""
KRYLOV_EXAMPLES = 8
"""Number of examples for the largest singular value of each block."""
KRYLOV_STEPS = 20
ROWS = 2**25
"""Number of entries of input Jacobians in memory."""
WORK = 2e10
"""Limit on classes squared x input size x examples; above it, fewer examples (at least 4) get an input Jacobian."""
AGREEMENT = 1e-2
"""Relative difference above which two derivatives disagree."""
_CHOICE, _DIRECTION, _START, _TRIAL = range(4)  # the number of the draw in an example's noise


@dataclass(frozen=True, eq=False)
class Tangents:
    """J_l u for every block l, in forward mode, or by central differences with `step`.

    Attributes:
        model: the network, or a copy in float64.
        step: of the differences, for unit directions; None: forward mode.
        dtype: of the network's inputs.
    """

    model: Model
    dtype: torch.dtype
    step: float | None = None

    def __call__(self, x: Inputs, u: Inputs, network_blocks: Sequence[Block]) -> list[Tensor]:
        """Return J_l u of each example at x, (n, size) for each block."""
        x, u = x.to(self.dtype), u.to(self.dtype)
        with torch.no_grad():
            if self.step is not None:
                ahead, behind = (features(self.model, x + h * u, network_blocks) for h in (self.step, -self.step))
                return [(a - b) / (2 * self.step) for a, b in zip(ahead, behind, strict=True)]
            with tangents(), _with_tangents():
                values = features(self.model, forward_ad.make_dual(x, u), network_blocks)  # type: ignore[no-untyped-call]
                pairs = [forward_ad.unpack_dual(value) for value in values]  # type: ignore[no-untyped-call]
                return [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs]


@contextmanager
def _with_tangents() -> Iterator[None]:
    """Use attention kernels that support tangents; the fused ones raise."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def directions(subject: Subject) -> Finding:
    """Directional uniformity of each block's Jacobian, and the singular values of the input Jacobian of the logits.

    c_l(x) = std_u ||J_l u|| / mean_u ||J_l u|| over random unit directions u, J_l the Jacobian from the input to
    the output of block l (Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, name it uniform smoothing; the
    definition is new). It is 0 if all directions are stretched equally; with fewer outputs than inputs that is
    impossible, and a line shows the value for equal singular values. Each example's value is the mean over the blocks.
    An m x n Jacobian has min(n, m) singular values: their root mean square comes from E ||J u||^2 = ||J||_F^2 / n, the
    largest from a Krylov space, those of the raw logits (no mean subtracted) from the whole matrix.
    """
    model, device = subject.classifier, subject.test.x.device
    streams = Noise.of(subject.seed, subject.test.ids)
    # drawn by id, so that models share the examples, whatever the order of the classes
    chosen = streams.fold(_CHOICE).uniform((), torch.float64).argsort()[:EXAMPLES]
    x, ids, noise = subject.test.x[chosen], subject.test.ids[chosen], streams.rows(chosen)
    with as_reported(device), under_attack(model):
        network_blocks, notes = blocks(model, x)
        tangents, method_note = _choose(model, x, network_blocks, noise.fold(_TRIAL))
        lengths = _lengths(tangents, x, network_blocks, noise.fold(_DIRECTION), subject.batch_size)
        values = _input_jacobian_values(model, x, subject.batch_size)
        largest, doubt = _largest_values(model, tangents, x, network_blocks, noise)
    spread = lengths.std(dim=1, correction=0) / lengths.mean(dim=1)
    sizes = torch.tensor([min(block.size, x[0].numel()) for block in network_blocks], device=device)
    rms = (lengths.square().mean(dim=1) * x[0].numel() / sizes).sqrt()
    counted = spread.isfinite().any(dim=0)
    mean = spread[:, counted].mean(dim=1)
    dead = [block.name for block, reached in zip(network_blocks, counted, strict=True) if not reached]
    if dead:
        notes += (f"{', '.join(dead)}: no direction of the input changes the output; the means exclude it.",)
    if len(values) < len(x):
        notes += (f"Input Jacobians: of {len(values)} examples only, because of their cost.",)
    names, few_ids = tuple(block.name for block in network_blocks), ids[: len(values)]
    relative = values.std(dim=1, correction=0) / values.mean(dim=1)
    caption = f"median over {len(x)} examples, with the middle half"
    caption_of_largest = f"median over {len(largest)} examples, with the middle half"
    distributions = (
        distribution("directional spread", mean, ids),
        distribution("largest singular value of the input Jacobian", values[:, 0], few_ids),
        distribution("smallest singular value of the input Jacobian", values[:, -1], few_ids),
        distribution("spread of the input Jacobian's singular values", relative, few_ids),
    )
    return Finding(
        "Directions",
        _summary(distributions),
        tuple(number for values_of in distributions for number in average(f"{values_of.name}: mean", values_of.values)),
        distributions,
        (
            _line("directional spread", names, spread, f"{caption}; {DIRECTIONS} directions each"),
            Line("directional spread of equal singular values", names, _floor(network_blocks, x[0].numel())),
            _line("root mean square of the Jacobian's singular values", names, rms, caption, log=True),
            _line("largest singular value of the Jacobian", names, largest, caption_of_largest, log=True),
        ),
        (*notes, method_note, *doubt, *(note for values_of in distributions for note in missing_note(values_of))),
    )


def _choose(model: Model, x: Inputs, network_blocks: Sequence[Block], noise: Noise) -> tuple[Tangents, str]:
    """Return forward mode if it runs and agrees with differences, else differences; and a sentence about it."""
    differences = _differences(model, x)
    two = slice(0, 2)
    # next to x, where no unit lies exactly on a kink, to test the derivative
    at = x[two] + 0.01 * noise.normal(x.shape[1:], x.dtype)[two]
    u = _unit(noise.fold(1).normal(x.shape[1:], x.dtype)[two])
    forward = Tangents(model, x.dtype)
    try:
        tangents = forward(at, u, network_blocks)
    except Exception as error:
        first = str(error).strip().splitlines() or [""]
        return differences, f"{_by(differences)}: forward mode does not run ({type(error).__name__}: {first[0][:200]})."
    expected = differences(at, u, network_blocks)
    with torch.no_grad():
        values = features(differences.model, at.to(differences.dtype), network_blocks)
    for block, a, b, value in zip(network_blocks, tangents, expected, values, strict=True):
        assert differences.step is not None
        rounding = 100 * torch.finfo(differences.dtype).eps / differences.step * value.norm()
        if not (a.to(b) - b).norm() <= AGREEMENT * b.norm() + rounding:
            return differences, f"{_by(differences)}: forward mode gives another derivative at {block.name}."
    return forward, "J u is computed in forward mode, which agreed with differences."


def _differences(model: Model, x: Inputs) -> Tangents:
    """Return central differences, in float64 if a copy of the network supports it."""
    try:
        wide = copy.deepcopy(model).double()
        with torch.no_grad():
            wide(x[:1].double())
        return Tangents(wide, torch.float64, 1e-5)
    except Exception:
        return Tangents(model, x.dtype, 1e-2)


def _by(differences: Tangents) -> str:
    kind = str(differences.dtype).removeprefix("torch.")
    return f"J u is computed by central differences in {kind}, step {differences.step:g}"


def _lengths(tangents: Tangents, x: Inputs, network_blocks: Sequence[Block], noise: Noise, batch_size: int) -> Tensor:
    """Return ||J_l u|| of every example and direction: (n, directions, blocks), float64."""
    lengths = []
    for rows in torch.split(torch.arange(len(x), device=x.device), max(1, batch_size // DIRECTIONS)):
        u = _unit(noise.rows(rows).normal((DIRECTIONS, *x.shape[1:]), x.dtype).flatten(0, 1))
        at = x[rows].repeat_interleave(DIRECTIONS, dim=0)
        parts = [
            tangents(*pair, network_blocks)
            for pair in zip(torch.split(at, batch_size), torch.split(u, batch_size), strict=True)
        ]
        part_lengths = torch.cat([torch.stack([_length(t) for t in part], dim=1) for part in parts])
        lengths.append(part_lengths.view(len(rows), DIRECTIONS, len(network_blocks)))
    return torch.cat(lengths)


def input_jacobian(model: Model, x: Inputs) -> Tensor:
    """Return the Jacobian of the logits at each example, (n, classes, input size), by one backward per class."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf.clone())  # a copy: the network may write into its input
        if not logits.requires_grad:
            return x.new_zeros((len(x), logits.shape[1], x[0].numel()))
        rows = [
            torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True, materialize_grads=True)[0].flatten(1)
            for k in range(logits.shape[1])
        ]
    return torch.stack(rows, dim=1)


def _input_jacobian_values(model: Model, x: Inputs, batch_size: int) -> Tensor:
    """Return the singular values of the input Jacobians, in falling order; of a few examples if they are expensive."""
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    entries = classes * x[0].numel()
    values = []
    for rows in torch.split(x[: max(4, int(WORK / (classes * entries)))], max(1, min(batch_size, ROWS // entries))):
        matrices = input_jacobian(model, rows).double()
        usable = matrices.flatten(1).isfinite().all(dim=1)
        singular = matrices.new_full((len(rows), min(matrices.shape[1:])), torch.nan)
        singular[usable] = torch.linalg.svdvals(matrices[usable])
        values.append(singular)
    return torch.cat(values)


def _largest_values(
    model: Model, tangents: Tangents, x: Inputs, network_blocks: Sequence[Block], noise: Noise
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the largest singular value of each block's Jacobian, (few examples, blocks), and notes."""
    examples = x[:KRYLOV_EXAMPLES].detach()
    leaf = examples.clone().requires_grad_()
    with torch.enable_grad():
        outputs = features(model, leaf.clone(), network_blocks)
    start = noise.rows(torch.arange(len(examples), device=x.device)).fold(_START).normal(x.shape[1:], x.dtype)
    columns, doubted = [], []
    for block, output in zip(network_blocks, outputs, strict=True):

        def forward(v: Tensor, block: Block = block) -> Tensor:
            return tangents(examples, v.view_as(examples), [block])[0].to(examples.dtype)

        def backward(w: Tensor, output: Tensor = output) -> Tensor:
            if not output.requires_grad:
                return torch.zeros_like(examples).flatten(1)
            (v,) = torch.autograd.grad(output, leaf, w, retain_graph=True, materialize_grads=True)
            return v.flatten(1)

        if _adjoint(forward, backward, output.detach(), start.flatten(1)):
            columns.append(largest_singular_value(forward, backward, start.flatten(1), KRYLOV_STEPS))
        else:
            columns.append(examples.new_full((len(examples),), torch.nan, dtype=torch.float64))
            doubted.append(block.name)
    if not doubted:
        return torch.stack(columns, dim=1), ()
    return torch.stack(columns, dim=1), (
        f"{', '.join(doubted)}: the gradient is not the function's (a surrogate's, say), so the largest singular value"
        " is left out, and singular values of the input Jacobian are the gradient's.",
    )


Map = Callable[[Tensor], Tensor]


def _adjoint(forward: Map, backward: Map, like: Tensor, v: Tensor) -> bool:
    """Tell whether <w, J v> = <J^T w, v>, with w = J v."""
    w = forward(_unit(v))
    if w.shape != like.shape or not w.isfinite().all():
        return False
    ahead, behind = w.double().square().sum(dim=1), (backward(w).double() * _unit(v).double()).sum(dim=1)
    return bool(((ahead - behind).norm() <= AGREEMENT * ahead.norm()).all())


def largest_singular_value(forward: Map, backward: Map, start: Tensor, steps: int) -> PerExample:
    """Return the largest singular value of each example's matrix J, given v -> J v and w -> J^T w: (n, d) and (n, m).

    Lanczos on J^T J with full orthogonalisation (Golub & Van Loan, section 10.1): each step costs as much as a step of
    the power iteration, but the result is the best vector in the span of all steps. A lower bound.
    """
    basis = [_unit(start)]
    columns: list[Tensor] = []
    for _ in range(min(steps, start.shape[1])):
        w = backward(forward(basis[-1]))
        q = torch.stack(basis, dim=1)
        columns.append(torch.einsum("nkd,nd->nk", q.double(), w.double()))
        length = w.norm(dim=1, keepdim=True)
        for _ in range(2):  # a single pass leaves the rounding of large components
            w = w - torch.einsum("nkd,nk->nd", q, torch.einsum("nkd,nd->nk", q, w))
        alive = w.norm(dim=1, keepdim=True) > 10 * torch.finfo(w.dtype).eps * length
        basis.append(torch.where(alive, _unit(w), 0.0))  # 0: the space is exhausted
    size = len(columns)
    matrix = torch.zeros(len(start), size, size, dtype=torch.float64, device=start.device)
    for k, column in enumerate(columns):
        matrix[:, k, : k + 1] = column  # eigvalsh reads the lower triangle
    usable = matrix.flatten(1).isfinite().all(dim=1)
    values = matrix.new_full((len(start),), torch.nan)
    values[usable] = torch.linalg.eigvalsh(matrix[usable])[:, -1].clamp(min=0).sqrt()
    return values


def _floor(network_blocks: Sequence[Block], n: int) -> tuple[float, ...]:
    """Return c of a map from n inputs with min(n, m) equal singular values: r = ||J u||^2 / s^2 is Beta distributed.

    r ~ Beta(m / 2, (n - m) / 2), so that E r = m / n and E sqrt(r) is a ratio of gamma functions.
    """

    def spread(m: int) -> float:
        log_mean = math.lgamma((m + 1) / 2) - math.lgamma(m / 2) + math.lgamma(n / 2) - math.lgamma((n + 1) / 2)
        return math.sqrt(max(0.0, m / n * math.exp(-2 * log_mean) - 1))

    return tuple(spread(min(block.size, n)) if block.size < n else 0.0 for block in network_blocks)


def _unit(v: Tensor) -> Tensor:
    length = v.flatten(1).norm(dim=1).clamp(min=torch.finfo(v.dtype).tiny)
    unit: Tensor = v / length.view(-1, *[1] * (v.dim() - 1))
    return unit


def _length(v: Tensor) -> PerExample:
    length: Tensor = torch.linalg.vector_norm(v, dim=1, dtype=torch.float64)
    return length


def _quantile(values: Tensor, q: float) -> Tensor:
    return torch.nanquantile(values.masked_fill(~values.isfinite(), torch.nan), q, dim=0)


def _line(name: str, names: tuple[str, ...], values: Tensor, about: str, *, log: bool = False) -> Line:
    def plain(q: float) -> tuple[float | None, ...]:
        least = 0.0 if log else -torch.inf
        return tuple(value if least < value < torch.inf else None for value in _quantile(values, q).tolist())

    return Line(name, names, plain(0.5), plain(0.25), plain(0.75), log=log, about=about)


def _summary(distributions: Sequence[Distribution]) -> str:
    if not all(distribution.values for distribution in distributions):
        return "Not every derivative of this network could be measured."
    spread, largest, smallest, _ = (statistics.median(distribution.values) for distribution in distributions)
    return (
        f"Over random directions the changes after the blocks vary by {spread:.1%} of their mean; the input Jacobian's"
        f" singular values run from {smallest:.3g} to {largest:.3g} (medians over the examples)."
    )
