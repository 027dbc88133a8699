"""Gradients past single layers, and logits of inner layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturbed.examinations.remedies.passing import passed
from unperturbed.noise import Noise
from unperturbed.types import Inputs, Logits


class PastLayer(nn.Module):
    """A network with the same logits, whose gradient passes straight through some layers, from output to input.

    Args:
        network: returns logits.
        layers: modules in it; modules that change the shape of their input are not passed.
    """

    def __init__(self, network: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.held = network, list(layers)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""

        def past(module: nn.Module, inputs: tuple[Any, ...], value: Any) -> Any:
            passes = isinstance(value, Tensor) and isinstance(inputs[0], Tensor) and inputs[0].shape == value.shape
            return passed(inputs[0], value) if passes else value

        handles = [layer.register_forward_hook(past) for layer in self.held]
        try:
            return self.network(x)  # type: ignore[no-any-return]
        finally:
            for handle in handles:
                handle.remove()


class FromInputOf(nn.Module):
    """A network with the same logits, whose gradient at the input of one layer is passed straight to the input.

    The backward skips everything before the layer, such as a purifier, a random resizing or a rounding. Images
    of another size are passed by interpolation.

    Args:
        network: returns logits.
        layer: a module in it that takes inputs of the shape of x, or images of another size.
        calls: its number of calls in a forward; the last call counts.
    """

    def __init__(self, network: nn.Module, layer: nn.Module, calls: int = 1) -> None:
        super().__init__()
        self.network, self.held, self.calls = network, [layer], calls

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        count = 0

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            nonlocal count
            count += 1
            if count != self.calls or not torch.is_grad_enabled():
                return None
            source = x
            if inputs[0].shape != x.shape:
                source = functional.interpolate(x, inputs[0].shape[2:], mode="bilinear", align_corners=False)
            return (passed(source, inputs[0]), *inputs[1:])

        handle = self.held[0].register_forward_pre_hook(before)
        try:
            return self.network(x)  # type: ignore[no-any-return]
        finally:
            handle.remove()


class LogitsOf(nn.Module):
    """The output of one layer of a network in its last call, as logits."""

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.network, self.held = network, [layer]

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; raises `RuntimeError` if the layer is not called."""
        values: list[Tensor] = []
        handle = self.held[0].register_forward_hook(lambda module, inputs, value: values.append(value))
        try:
            self.network(x)
        finally:
            handle.remove()
        if not values:
            raise RuntimeError("the layer that gives the logits was not called")
        return values[-1]


class LogProbabilities(nn.Module):
    """A network that returns probabilities, replaced by their logarithms."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Inputs) -> Logits:
        """Return log p."""
        p: Logits = self.network(x)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()


class Smoothed(nn.Module):
    """A network with the same logits, whose gradient is a mean over random points around the input.

    Args:
        network: returns logits.
        radius: of the cube that the points are drawn from.
        draws: number of points.
    """

    def __init__(self, network: nn.Module, radius: float, draws: int = 4) -> None:
        super().__init__()
        self.network, self.radius, self.draws = network, radius, draws

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        with torch.no_grad():
            value: Logits = self.network(x)
        if not torch.is_grad_enabled():
            return value
        ids = (x.detach().flatten(1).double().sum(1) * 2.0**20).long()  # other points for another input
        noise = Noise.of(0, ids)
        mean = torch.zeros_like(value)
        for number in range(self.draws):
            shift = self.radius * (2 * noise.fold(number).uniform(x.shape[1:], x.dtype) - 1)
            mean = mean + self.network(x + shift) / self.draws
        return passed(mean, value)
