"""Attacks given as a function, such as those of other libraries."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Model, Norm


@dataclass(frozen=True)
class FunctionAttack(Attack):
    """A function of (model, x, y) that returns perturbed inputs z of the shape of x.

    It sees at most `batch_size` examples at a time, the network in eval mode with frozen weights. Its points are
    projected onto the threat set; a point with NaN counts as none. A success is verified like that of any other attack.

    Attributes:
        label: name of the attack in tables.
        function: the function (model, x, y) -> z.
    """

    label: str
    function: Callable[[Model, Inputs, Labels], Tensor]
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError unless `function` takes (model, x, y)."""
        check_fields(self, restarts=AT_LEAST_ONE)
        try:
            inspect.signature(self.function).bind(None, None, None)
        except ValueError:  # a function of another language, without a signature
            return
        except TypeError as error:
            raise InputError(
                f"function is {self.function!r:.80}, but an attack is called with (model, x, y): {error}."
            ) from error

    def supports(self, norm: Norm) -> bool:
        """Tell that the function may search in any norm."""
        return True

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Call the function on parts of the batch; the passes of the network are counted.

        Raises:
            InputError: if the function does not return a tensor of the shape of x.
        """
        counted, points, lost = _Counted(model), list[Tensor](), 0
        for rows in torch.split(torch.arange(len(batch.x), device=batch.x.device), batch_size):
            x = batch.x[rows]
            with torch.enable_grad():
                z = self.function(counted, x.clone(), batch.y[rows])
            if not isinstance(z, Tensor) or z.shape != x.shape:
                kind = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                raise InputError(f"The attack {self.label} returned {kind} for inputs of shape {tuple(x.shape)}.")
            if z.layout != x.layout or z.is_complex() or z.is_quantized or z.device.type == "meta":
                raise InputError(
                    f"The attack {self.label} returned a tensor of {z.dtype} that is not dense or not real."
                )
            z = z.detach().to(x)
            finite = z.isfinite().flatten(1).all(dim=1).view(-1, *[1] * (x.dim() - 1))
            lost += int((~finite).sum())
            points.append(threat.project(x, torch.where(finite, z, x)))
        z = torch.cat(points) if points else batch.x
        margins = margin(padded_logits(model, z, batch_size), batch.y)
        ones = torch.ones_like(batch.y)
        text = f"{self.label} returned NaN or infinite points for {lost} examples: they count as none."
        passes = counted.examples + len(z)
        return AttackResult(
            z, margins, margins.isfinite(), ones, passes, counted.examples, warnings=(text,) * (lost > 0)
        )


class _Counted(nn.Module):
    """The network for the user's function; it counts the examples of its forwards."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network, self.examples = network, 0
        self.eval()

    def forward(self, x: Inputs) -> Logits:
        self.examples += len(x)
        logits: Logits = self.network(x)
        return logits
