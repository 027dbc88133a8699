"""Adversarial weight perturbation around any method."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.errors import InputError, RunError
from unperturbed.losses import cross_entropy
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method, Wrapper, mean_over_processes
from unperturbed.networks.modes import buffers_restored, eager, own_randomness
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Model, Terms


@dataclass(frozen=True)
class AWP(Wrapper):
    """A method's loss at w + v, v_l = gamma * |w_l| g_l / |g_l| in each layer l, g its gradient at w (Wu et al. 2020).

    https://arxiv.org/abs/2004.05884: one step of ascent in the weights, from points that were perturbed at w. Layers
    are the parameters of more than one dimension; biases and batch norm stay. The weights never change: the network is
    called with other tensors as parameters, and the gradient at w + v reaches w. So weight decay acts on w, where the
    released code's acts on w + v. The ascent moves no running averages; those of the descent are at w + v.

    Costs one more forward and backward to the weights for each of the method's.

    Attributes:
        method: the method.
        gamma: length of v_l over that of w_l.
    """

    name: ClassVar[str] = "awp"
    ramp: ClassVar[float] = 0.25
    method: Method = field(default_factory=AT)
    gamma: float = 0.005

    def __post_init__(self) -> None:
        """Raise InputError for a negative gamma, and adopt the method's repeats and ramp."""
        check_fields(self, gamma=NOT_NEGATIVE)
        self.adopt()

    def around(self, method: Method) -> "AWP":
        """Return the same perturbation around another method."""
        return replace(self, method=method)

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return the method's notes.

        Raises:
            InputError: if the network has no layer to perturb.
            RunError: if the network recomputes activations in the backward, where the moved weights are gone.
        """
        weights = list(_some_layers(model).values())
        if _computes_again(model, batch, weights):
            raise RunError(
                "This network recomputes activations during the backward (activation checkpointing), but awp's "
                "perturbed weights are in place during the forward only: its gradient would be wrong. Switch that off."
            )
        return self.method.check(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the method's terms at the perturbed weights.

        Raises:
            InputError: if the network has no layer to perturb.
        """
        moving = _some_layers(model)
        weights = list(dict.fromkeys(moving.values()))  # a weight with two paths moves at both
        with buffers_restored(model):
            terms = self.method.loss(model, batch, inner, threat, noise)
            grads = torch.autograd.grad(torch.stack(list(terms.values())).sum(), weights, materialize_grads=True)
        moved = {w: w + self._ascent(w.detach(), mean_over_processes(g)) for w, g in zip(weights, grads, strict=True)}
        at = At(model, {path: moved[weight] for path, weight in moving.items()})
        return self.method.loss(at, batch, inner, threat, noise)

    def _ascent(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return gamma * |w| g / |g|, 0 where there is no gradient."""
        peak = gradient.abs().max()
        direction = gradient / torch.where(peak > 0, peak, 1.0)  # the squares of a small gradient would be 0
        size = direction.norm()
        length: Tensor = self.gamma * weight.norm() / torch.where(size > 0, size, 1.0)
        return length * direction


class At(nn.Module):
    """A network called with other tensors as its parameters; its parameters do not change."""

    forward_mode: ClassVar[bool] = True

    def __init__(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.tensors = dict(tensors)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; compiled networks, which cannot take other tensors, run eagerly."""
        with eager():  # every path is given, and tying would restore the wrong tensors under Fabric
            logits: Logits = functional_call(self.network, self.tensors, (x,), tie_weights=False)
        return logits


def _computes_again(model: Model, batch: Batch, weights: list[nn.Parameter]) -> bool:
    """Tell whether a backward calls modules of the network."""
    called: list[nn.Module] = []
    with buffers_restored(model), own_randomness(0, batch.x.device), plainly():
        loss = cross_entropy(model(batch.x), batch.targets).sum()
        hooks = [m.register_forward_pre_hook(lambda module, inputs: called.append(module)) for m in model.modules()]
        try:
            torch.autograd.grad(loss, weights, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
    return bool(called)


def layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of more than one dimension by path, including all paths of a tied one."""
    return {
        f"{path}.{name}" if path else name: weight
        for path, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False)
        if weight.dim() > 1 and weight.requires_grad
    }


def _some_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    moving = layers(model)
    if not moving:
        raise InputError(
            "awp perturbs parameters of more than one dimension, but no such parameter of this network learns: "
            "unfreeze one, or train by the method alone."
        )
    return moving
