"""One optimisation step."""

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from unperturbed.errors import RunError
from unperturbed.methods.base import Method
from unperturbed.networks.modes import under_attack
from unperturbed.networks.second import is_missing, lacking
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Terms


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

    `attacked` is the bare network, `wrapped` the same as Fabric wraps it, which averages gradients over the processes
    whenever a backward passes it.

    Raises:
        RunError: if the loss or its gradient is not finite, or the network has no second derivative that the method
            needs, before the weights have changed.
    """
    with under_attack(attacked):
        inner = method.perturb(attacked, batch, threat, noise)
    terms = method.loss(wrapped, batch, inner, threat, noise)
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        raise RunError(
            f"The loss is not finite ({_shown(terms)}) on the examples {batch.ids.tolist()}. "
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
            "perhaps a slope of the network is infinite there, as a root's is at 0. Lower --lr; clipping cannot help."
        )
    if clip_grad_norm is not None:
        fabric.clip_gradients(wrapped, optimiser, max_norm=clip_grad_norm, error_if_nonfinite=False)
    optimiser.step()
    method.after_step(batch, inner, terms, threat)
    return {name: term.detach() for name, term in terms.items()}, inner


def _shown(terms: Terms) -> str:
    return ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
