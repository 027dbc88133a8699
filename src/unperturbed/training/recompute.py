"""Activation checkpointing: blocks whose activations are computed again in the backward instead of being stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from unperturbed.networks.modes import buffers_restored, eager


@contextmanager
def recomputed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let the forwards in this block store only the inputs of these modules (Chen et al. 2016), in eager mode.

    https://arxiv.org/abs/1604.06174. Their backward calls a module a second time, with the same random numbers; its
    buffers (the running averages of batch norm) move in the first call only.
    """
    if not modules:
        yield
        return
    before = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = _storing_inputs(module, module.forward)
        with eager():
            yield
    finally:
        for module, original in zip(modules, before, strict=True):
            if original is None:
                vars(module).pop("forward", None)
            else:
                module.forward = original


def _storing_inputs(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def again(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        contexts = lambda: (nullcontext(), _Again(module))  # noqa: E731
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return again


class _Again:
    """The surroundings of a second forward: buffers are restored after it, and attention is computed as in the first.

    It can be entered several times, since a second derivative recomputes twice.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attention = [backend for backend, enabled in _ATTENTION.items() if enabled()]
        self.entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(buffers_restored(self.module))
        if self.attention:
            stack.enter_context(sdpa_kernel(self.attention))
        self.entered.append(stack)

    def __exit__(self, *error: Any) -> None:
        self.entered.pop().close()


_ATTENTION: dict[SDPBackend, Callable[[], bool]] = {
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
    SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
}
"""The implementations of attention, which `curvature.products` restricts to the one with a second derivative."""
