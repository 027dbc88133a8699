"""Modes that whoever changes them restores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def under_attack(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode and freeze every weight, for attacks and for everything that only looks.

    Each submodule's own training flag, each parameter's requires_grad and each buffer are as before afterwards, also
    when an exception leaves the block.
    """
    flags = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        for module, _ in flags:
            module.training = False
        for weight, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in flags:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if getattr(module, name) is not buffer:  # a forward may have put another tensor in its place
                    setattr(module, name, buffer)
                if not torch.equal(buffer, before):  # writing would spoil a graph that waits for its backward
                    buffer.copy_(before)
