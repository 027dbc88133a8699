"""Activation checkpointing: blocks whose activations are computed again in the backward instead of being stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
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
        contexts = lambda: (nullcontext(), buffers_restored(module))  # noqa: E731
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return again
