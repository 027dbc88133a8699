"""One optimisation step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from unperturbed.errors import RunError
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method, mean_over_processes
from unperturbed.networks.modes import under_attack
from unperturbed.networks.not_finite import where_not_finite
from unperturbed.networks.second import is_missing, lacking
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.shards import reshard
from unperturbed.types import Batch, Inner, Inputs, Terms


def optimisation_step(
    fabric: Fabric,
    attacked: nn.Module,
    wrapped: nn.Module,
    optimiser: Optimizer,
    method: Method,
    batch: Batch,
    threat: Threat,
    noise: Noise,
    clip_grad_norm: float | None = None,
    parts: int = 1,
) -> tuple[Terms, Inner]:
    """Perturb, descend, and let the method update its memory; return the terms (detached) and the inner result.

    `attacked` is the bare network, `wrapped` the same in Fabric's wrapper, whose backward averages gradients over the
    processes. With several `parts` the gradient is accumulated over parts of the batch, one of them in memory at a
    time; the processes share it once, after the last part.

    Raises:
        RunError: if the loss or its gradient is not finite, or the network lacks a second derivative that the method
        needs; the weights have not changed then.
    """
    optimiser.zero_grad(set_to_none=True)

    def sharing(last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else fabric.no_backward_sync(cast(_FabricModule, wrapped))

    terms, inner = accumulate(attacked, wrapped, method, batch, threat, noise, parts, fabric.backward, sharing)
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    if not _finite([weight.grad for weight in weights if weight.grad is not None]):
        raise RunError(
            f"The gradient is not finite, though the loss is ({_shown(terms)}), on the examples {batch.ids.tolist()}: "
            f"{_cause(attacked, batch, inner)} Lower --lr; clipping cannot help."
        )
    if clip_grad_norm is not None:
        fabric.clip_gradients(wrapped, optimiser, max_norm=clip_grad_norm, error_if_nonfinite=False)
    optimiser.step()
    method.after_step(batch, inner, terms, threat)
    return {name: term.detach() for name, term in terms.items()}, inner


def accumulate(
    attacked: nn.Module,
    wrapped: nn.Module,
    method: Method,
    batch: Batch,
    threat: Threat,
    noise: Noise,
    parts: int,
    backward: Callable[[Tensor], None],
    sharing: Callable[[bool], AbstractContextManager[None]] = lambda last: nullcontext(),
) -> tuple[Terms, Inner]:
    """Add the gradient of a batch to that of the weights, over parts of the batch; return its terms and inner result.

    The gradient is that of the whole batch for methods whose loss is a mean over examples. Of several parts, the terms
    are the weighted means, and the inner result has the points and diagnostics of all, but nothing to reuse.
    `sharing` is entered for each part, with whether it is the last one.
    """
    if parts == 1:
        with sharing(True):
            terms, inner = _backpropagate(attacked, wrapped, method, batch, threat, noise, 1.0, backward)
        return terms, inner
    pieces = torch.arange(len(batch.x), device=batch.x.device).chunk(parts)
    results = []
    for number, rows in enumerate(pieces):
        piece = Batch(batch.x[rows], batch.y[rows], batch.ids[rows], batch.targets[rows])
        with sharing(number == len(pieces) - 1):
            share = len(rows) / len(batch.x)
            results.append(_backpropagate(attacked, wrapped, method, piece, threat, noise.rows(rows), share, backward))
    shares = [len(rows) / len(batch.x) for rows in pieces]
    terms = {
        name: torch.stack([share * part[name].detach() for share, (part, _) in zip(shares, results, strict=True)]).sum()
        for name in results[0][0]
    }
    inners = [inner for _, inner in results]
    axis = 0 if len(inners[0].z) == len(pieces[0]) else 1  # a method may need several points of each example
    log = {name: torch.cat([inner.log[name].detach() for inner in inners]) for name in inners[0].log}
    return terms, Inner(torch.cat([inner.z.detach() for inner in inners], dim=axis), log=log)


def _backpropagate(
    attacked: nn.Module,
    wrapped: nn.Module,
    method: Method,
    batch: Batch,
    threat: Threat,
    noise: Noise,
    share: float,
    backward: Callable[[Tensor], None],
) -> tuple[Terms, Inner]:
    """Add the gradient of `share` times the loss to that of the weights; return the terms and the inner result."""
    with under_attack(attacked):
        inner = method.perturb(attacked, batch, threat, noise)
        reshard(attacked)
    terms = method.loss(wrapped, batch, inner, threat, noise)
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        module = not_finite_at(attacked, batch.x, batch)
        slope = f"The gradient at the inputs stops being finite in {module}, as a root's does at 0. " if module else ""
        raise RunError(
            f"The loss is not finite ({_shown(terms)}) on the examples {batch.ids.tolist()}. {slope}"
            "Lower --lr, or set --clip-grad-norm."
        )
    try:
        backward(loss if share == 1 else share * loss)
    except RuntimeError as error:
        if is_missing(error):
            raise RunError(lacking(attacked, batch.x[:2], error)) from error
        raise
    return terms, inner


def _finite(gradients: list[Tensor]) -> bool:
    """Tell whether all gradients are finite; of sharded ones, the parts in all processes."""
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return bool(nn.utils.get_total_norm(gradients, torch.inf).isfinite())
    parts = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    parts = [part for part in parts if part.numel()]  # a short weight has no part in some processes
    largest = nn.utils.get_total_norm(parts, torch.inf) if parts else torch.zeros(())
    return bool(mean_over_processes(largest).isfinite())


def _cause(model: nn.Module, batch: Batch, inner: Inner) -> str:
    """Return a sentence on the place where the gradient stops being finite."""
    spoiled = [
        name.removeprefix("network.").removeprefix("module.")
        for name, weight in model.named_parameters()
        if weight.grad is not None and not bool(weight.grad.isfinite().all())
    ]
    modules_found = [not_finite_at(model, x, batch) for x in (batch.x, inner.z) if x.shape == batch.x.shape]
    module = next((found_in for found_in in modules_found if found_in), None)
    where = f"it stops being finite in {module}" if module else "perhaps a slope of the network is infinite there"
    weights = f" It concerns {', '.join(spoiled[:3])}{', ...' * (len(spoiled) > 3)}." if spoiled else ""
    return f"{where}, as a root's is at 0.{weights}"


def not_finite_at(model: nn.Module, x: Inputs, batch: Batch) -> str | None:
    """Return the part of the network where the gradient at x stops being finite; None: nowhere, or unknown."""
    with under_attack(model):
        return where_not_finite(model, x.detach(), lambda logits: cross_entropy(logits, batch.y))


def _shown(terms: Terms) -> str:
    return ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
