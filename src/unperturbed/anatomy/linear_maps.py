"""The linear part of a layer, for one shape of inputs."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional, grad

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_BACK = {1: grad.conv1d_input, 2: grad.conv2d_input, 3: grad.conv3d_input}
_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A matrix or a convolution without its bias, in float64.

    Attributes:
        name: path of the module, and the name of the part if it holds several maps.
        kind: the kind of the layer, in one or two words.
        weight: (outputs, inputs of a group, *kernel); a matrix has no kernel, and maps every token alike.
        space: height and width, say, of a convolution's input; () for a matrix.
        stride: one a dimension of space.
        dilation: one a dimension of space.
        padding: before and after, one pair a dimension of space.
        mode: of the padding, by the names of `torch.nn.functional.pad`.
        groups: of a convolution.
        transposed: whether the layer is the adjoint of this map, which has the same singular values.
    """

    name: str
    kind: str
    weight: Tensor
    space: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    mode: str = "constant"
    groups: int = 1
    transposed: bool = False

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return (self.weight.shape[1] * self.groups, *self.space)

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Of one output."""
        return (len(self.weight), *(self._size(k) for k in range(len(self.space))))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map's matrix."""
        return math.prod(self.out_shape), math.prod(self.in_shape)

    @property
    def work(self) -> int:
        """Number of multiplications of one application."""
        return self.weight.numel() * math.prod(self.out_shape[1:])

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs, (n, *out_shape), at inputs (n, *in_shape) of any floating type."""
        weight = self.weight.to(x.dtype)
        if not self.space:
            return x @ weight.T
        widths = [width for pair in reversed(self.padding) for width in pair]
        padded = functional.pad(x, widths, mode=self.mode) if any(widths) else x
        outputs: Tensor = _CONVOLVE[len(self.space)](
            padded, weight, stride=self.stride, dilation=self.dilation, groups=self.groups
        )
        return outputs

    def adjoint(self, y: Tensor) -> Tensor:
        """Return (n, *in_shape): the transposed matrix's products with (n, *out_shape)."""
        if not self.space:
            return y @ self.weight.to(y.dtype)
        if self.mode != "constant":
            with torch.enable_grad():
                x = y.new_zeros((len(y), *self.in_shape), requires_grad=True)
                return torch.autograd.grad(self(x), x, y)[0]
        padded = [size + sum(pair) for size, pair in zip(self.space, self.padding, strict=True)]
        back: Tensor = _BACK[len(self.space)](  # type: ignore[no-untyped-call]
            (len(y), self.in_shape[0], *padded),
            self.weight.to(y.dtype),
            y,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        inside = [slice(before, before + size) for size, (before, _) in zip(self.space, self.padding, strict=True)]
        return back[(slice(None), slice(None), *inside)]

    def matrix(self) -> Tensor:
        """Return the matrix (rows, columns), dense."""
        if not self.space:
            return self.weight
        rows, columns = self.size
        if columns <= rows:
            units = torch.eye(columns, dtype=self.weight.dtype)
            return torch.cat([self(part.view(-1, *self.in_shape)).flatten(1) for part in torch.split(units, 256)]).T
        units = torch.eye(rows, dtype=self.weight.dtype)
        return torch.cat([self.adjoint(part.view(-1, *self.out_shape)).flatten(1) for part in torch.split(units, 256)])

    def absolute(self) -> "LinearMap":
        """Return the map with the weights' absolute values."""
        return replace(self, weight=self.weight.abs())

    def squared(self) -> "LinearMap":
        """Return the map with the weights' squares."""
        return replace(self, weight=self.weight.square())

    def then(self, scale: Tensor) -> "LinearMap":
        """Return the map followed by a factor a channel (or feature) of its outputs."""
        return replace(self, weight=self.weight * scale.view(-1, *[1] * (self.weight.dim() - 1)))

    def after(self, scale: Tensor) -> "LinearMap":
        """Return the map after a factor a channel (or feature) of its inputs."""
        of_groups = scale.view(self.groups, -1).repeat_interleave(len(self.weight) // self.groups, dim=0)
        return replace(self, weight=self.weight * of_groups.view(*of_groups.shape, *[1] * (self.weight.dim() - 2)))

    def _size(self, k: int) -> int:
        reach = self.dilation[k] * (self.weight.shape[2 + k] - 1) + 1
        return (self.space[k] + sum(self.padding[k]) - reach) // self.stride[k] + 1


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Tell whether a module is of one of these classes and computes the same function.

    Subclasses count if they inherit `forward` (as parametrised modules do). Modules with forward hooks do not count,
    since hooks may replace the output.
    """
    methods = ("forward", "_conv_forward")
    return not (module._forward_hooks or "forward" in vars(module)) and any(
        isinstance(module, kind)
        and all(getattr(type(module), name, None) is getattr(kind, name, None) for name in methods)
        for kind in kinds
    )


def map_of(module: nn.Module, name: str, space: tuple[int, ...]) -> LinearMap | None:
    """Return the map of a linear layer or convolution whose input has this spatial shape; None for other modules."""
    if is_plain(module, nn.Linear):
        return LinearMap(name, "Linear", float64(cast(nn.Linear, module).weight))
    if is_plain(module, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        conv = cast(_Convolution, module)
        widths = conv._reversed_padding_repeated_twice  # "same" padding may differ between the two sides
        pairs = tuple(zip(widths[::2], widths[1::2], strict=True))[::-1]
        return LinearMap(
            name,
            type(conv).__name__ if conv.groups == 1 else f"{type(conv).__name__}, {conv.groups} groups",
            float64(conv.weight),
            space,
            conv.stride,
            conv.dilation,
            pairs,
            _MODES[conv.padding_mode],
            conv.groups,
        )
    if is_plain(module, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        back = cast(_Transposed, module)
        padding = tuple((int(width), int(width)) for width in back.padding)
        resolved = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
            for n, s, (p, _), d, k, extra in zip(
                space, back.stride, padding, back.dilation, back.kernel_size, back.output_padding, strict=True
            )
        )
        return LinearMap(
            name,
            type(back).__name__,
            float64(back.weight),
            resolved,
            back.stride,
            back.dilation,
            padding,
            groups=back.groups,
            transposed=True,
        )
    return None


def float64(weight: Tensor) -> Tensor:
    """Return a copy on the processor."""
    return weight.detach().to("cpu", torch.float64, copy=True)
