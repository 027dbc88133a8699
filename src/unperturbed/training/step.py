"""One optimisation step."""

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from unperturbed.errors import RunError
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method
from unperturbed.networks.modes import under_attack
from unperturbed.networks.not_finite import where_not_finite
from unperturbed.networks.second import is_missing, lacking
from unperturbed.noise import Noise
from unperturbed.threat import Threat
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
) -> tuple[Terms, Inner]:
    """Perturb, descend, and let the method update its memory; return the terms (detached) and the inner result.

    `attacked` is the bare network, `wrapped` the same in Fabric's wrapper, whose backward averages gradients over the
    processes.

    Raises:
        RunError: if the loss or its gradient is not finite, or the network lacks a second derivative that the method
        needs; the weights have not changed then.
    """
    with under_attack(attacked):
        inner = method.perturb(attacked, batch, threat, noise)
    terms = method.loss(wrapped, batch, inner, threat, noise)
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        module = not_finite_at(attacked, batch.x, batch)
        slope = f"The gradient at the inputs stops being finite in {module}, as a root's does at 0. " if module else ""
        raise RunError(
            f"The loss is not finite ({_shown(terms)}) on the examples {batch.ids.tolist()}. {slope}"
            "Lower --lr, or set --clip-grad-norm."
        )
    optimiser.zero_grad(set_to_none=True)
    try:
        fabric.backward(loss)
    except RuntimeError as error:
        if is_missing(error):
            raise RunError(lacking(attacked, batch.x[:2], error)) from error
        raise
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not bool(nn.utils.get_total_norm(gradients, torch.inf).isfinite()):
        raise RunError(
            f"The gradient is not finite, though the loss is ({_shown(terms)}), on the examples {batch.ids.tolist()}: "
            f"{_cause(attacked, batch, inner)} Lower --lr; clipping cannot help."
        )
    if clip_grad_norm is not None:
        fabric.clip_gradients(wrapped, optimiser, max_norm=clip_grad_norm, error_if_nonfinite=False)
    optimiser.step()
    method.after_step(batch, inner, terms, threat)
    return {name: term.detach() for name, term in terms.items()}, inner


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
