"""A guard around the user's code: its errors name the operation, the inputs, the probable cause and the remedy."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeGuard

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError, RunError

SHOWN = 8
"""The largest number of example ids in a message."""
CAUSES = (
    (
        r"leaf Variable that requires grad|is a view of a leaf|modified by an inplace operation",
        "It changes a tensor in place that a gradient needs: write x = x - 0.3 instead of x -= 0.3, and leave "
        "inplace=True out.",
    ),
    (
        r"checkpoint is incompatible with .?grad",
        "Activation checkpointing gives no gradients of inputs in this form: call "
        "torch.utils.checkpoint.checkpoint(..., use_reentrant=False).",
    ),
    (
        r"derivative for .* is not implemented|double backward|once_differentiable|differentiated twice",
        "It lacks a second derivative. Methods by differences do without one: scorpio, elle, gradient-penalty, or llr "
        "with --method.form differences; or exchange the operation (nn.Hardsigmoid for nn.Sigmoid, nn.Hardswish for "
        "nn.SiLU).",
    ),
    (
        r"backward through the graph a second time",
        "It keeps a tensor with its graph from one call to the next: detach() the stored tensor.",
    ),
    (
        r"does not require grad|not have been used in the graph|grad can be implicitly created",
        "The gradient is cut off inside the network (no_grad, detach, numpy, .data or item()): leave that out; where "
        "it calls autograd itself, enable gradients there (torch.enable_grad()).",
    ),
    (
        r"on the same device|device type .* but got|is on cpu|is on cuda",
        "It makes or holds tensors on another device: register them as buffers, or make them on x.device.",
    ),
    (
        r"more than 1 value per channel",
        "A batch norm in train mode needs more than one value a channel: give larger batches or inputs.",
    ),
    (
        r"out of memory|can't allocate memory|not enough memory",
        "Memory ran out: lower --batch-size, or take a smaller network.",
    ),
    (
        r"not implemented for '(Byte|Char|Int|Long|Bool)'|expected .*(Byte|uint8|Long|Int).* but|must be integ|"
        r"should be the same|but found (Float|Double|Half|BFloat16)|Expected .*dtype|must have the same dtype|"
        r"mat1 and mat2 must have|not implemented for '(BFloat16|Half)'",
        "Types do not fit: networks get floating-point inputs, in the type of their weights (--precision 32 keeps "
        "bfloat16 out).",
    ),
    (
        r"shapes cannot be multiplied|size mismatch|invalid for input of size|to have \d+ channels|Expected \d+D|"
        r"must match the size|should be equal|not enough values to unpack|too many values to unpack|normalized_shape|"
        r"smaller than kernel|Output size is too small|expand",
        "Shapes do not fit: build the network for inputs of this shape, and for batches of any size.",
    ),
)
"""Patterns of messages, with the probable cause and the remedy; the first match counts."""
OTHERWISE = (
    "Call the network on these inputs to see it; --debug (in Python: the error's __cause__) shows the traceback."
)
_PASSED = tuple(getattr(torch, name) for name in ("AcceleratorError", "OutOfMemoryError") if hasattr(torch, name))
"""The errors of a lost or full device, which are no fault of the network."""


@dataclass(frozen=True, eq=False)
class trying:
    """Turn errors in this block into an `InputError`, since nothing has begun yet.

    `doing` completes "While ...": "taking the gradient at the inputs". `ids` and `x` are the examples, where known. A
    class, since a generator's context would not let a StopIteration become another error.
    """

    doing: str
    ids: Tensor | None = None
    x: Tensor | None = None

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise the explanation instead of the error."""
        if isinstance(error, RunError):
            raise InputError(str(error)) from error.__cause__ or error
        if is_foreign_error(error):
            raise InputError(explain(error, self.doing, self.ids, self.x)) from error


@dataclass(frozen=True, eq=False)
class running:
    """Turn errors in this block into a `RunError` with the operation and the examples; otherwise like `trying`."""

    doing: str
    ids: Tensor | None = None
    x: Tensor | None = None

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise the explanation instead of the error."""
        if is_foreign_error(error):
            raise RunError(explain(error, self.doing, self.ids, self.x)) from error


def is_foreign_error(error: BaseException | None) -> TypeGuard[BaseException]:
    """Tell whether an error comes from the user's code: not from this package, an interruption or a lost device."""
    return isinstance(error, (Exception, SystemExit)) and not isinstance(error, (InputError, RunError, *_PASSED))


def explain(error: BaseException, doing: str, ids: Tensor | None = None, x: Tensor | None = None) -> str:
    """Return a message with the operation, the place, the inputs, the probable cause and the remedy."""
    return f"While {doing}{_on(error, ids, x)}: {named(error)}{place(error)}. {probable_cause(error)}"


def named(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:300].rstrip(".")


def probable_cause(error: BaseException) -> str:
    """Return the probable cause and the remedy."""
    if isinstance(error, RecursionError):
        return "The network calls itself without an end: look for a forward that calls the whole network."
    if isinstance(error, SystemExit):
        return "The network ends the program: raise an error there instead."
    if isinstance(error, MemoryError):
        return "Memory ran out: lower --batch-size, or take a smaller network."
    return next((cause for pattern, cause in CAUSES if re.search(pattern, str(error), re.IGNORECASE)), OTHERWISE)


def place(error: BaseException) -> str:
    """Return the layer of the network and the line of code that raised an error, as far as known."""
    calls = [call for call in _calls(error) if not _is_wrapper(call.f_locals["self"])]
    frames = list(_frames(error))
    line = next((f" at {_file(frame)}:{number}" for frame, number in reversed(frames) if _is_foreign(frame)), "")
    if not calls:
        return line
    outermost, innermost = calls[0].f_locals["self"], calls[-1].f_locals["self"]
    name = next((name for name, module in outermost.named_modules() if module is innermost), "")
    layer = f"layer {name!r} ({type(innermost).__name__})" if name else type(innermost).__name__
    return f" in {layer}{line}"


def described(x: Tensor) -> str:
    """Return the shape, type and range of inputs."""
    text = f"shape {tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')}"
    if x.numel() == 0 or x.is_complex() or x.is_quantized:
        return text
    values = x.detach().double() if x.dtype != torch.bool else x.detach().to(torch.uint8)
    finite = values[values.isfinite()]
    lost = x.numel() - finite.numel()
    scope = f", from {float(finite.min()):.4g} to {float(finite.max()):.4g}" if finite.numel() else ""
    return text + scope + (f", {lost} of them NaN or infinite" if lost else "")


def _on(error: BaseException, ids: Tensor | None, x: Tensor | None) -> str:
    inputs = x if x is not None else _first_input(error)
    parts = []
    if ids is not None and ids.numel():
        names = ", ".join(map(str, ids.flatten()[:SHOWN].tolist()))
        parts.append(f"on example{'s' * (ids.numel() > 1)} {names}{', ...' * (ids.numel() > SHOWN)}")
    if inputs is not None:
        parts.append(f"({described(inputs)})" if parts else f"on inputs of {described(inputs)}")
    return f" {' '.join(parts)}" if parts else ""


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _calls(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames of torch's calls of modules, the outermost first."""
    for frame, _ in _frames(error):
        if frame.f_code.co_name == "_call_impl" and isinstance(frame.f_locals.get("self"), nn.Module):
            yield frame


def _is_wrapper(module: nn.Module) -> bool:
    """Tell whether a module is a wrapper by this package, or by Fabric, around the user's network."""
    ours = type(module).__module__.startswith(("unperturbed.networks", "unperturbed.networks.precision"))
    return ours or type(module).__name__ in ("_FabricModule", "DistributedDataParallel")


def _first_input(error: BaseException) -> Tensor | None:
    for frame in _calls(error):
        tensors = [value for value in frame.f_locals.get("args", ()) if isinstance(value, Tensor)]
        if tensors:
            return tensors[0]
    return None


def _is_foreign(frame: FrameType) -> bool:
    """Tell whether a frame belongs to the user's code: not to this package, Python or a library."""
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    library = re.search(r"[/\\](site-packages|dist-packages|lib[/\\]python3[^/\\]*)[/\\]", frame.f_code.co_filename)
    return module not in ("unperturbed", "torch", "contextlib") and library is None


def _file(frame: FrameType) -> str:
    return re.split(r"[/\\]", frame.f_code.co_filename)[-1]
