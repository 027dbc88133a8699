"""Detection of networks that optimise at test time, which attacks through one forward can miss."""

import sys
from types import FrameType
from typing import Any

import torch
from torch import nn

from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs

_CODES = {torch.autograd.grad.__code__, torch.autograd.backward.__code__}


def calls_autograd(model: nn.Module, x: Inputs) -> bool:
    """Tell whether a forward calls autograd: with gradients or without, in this thread.

    Like AutoAttack's flag for dynamic defences (https://github.com/fra31/auto-attack, checks.py).
    """
    called, before = False, sys.getprofile()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal called
        called = called or (event == "call" and frame.f_code in _CODES)

    with under_attack(model), own_randomness(0, x.device):
        for gradients in (False, True):
            inputs = x.detach().clone().requires_grad_(gradients)
            with torch.set_grad_enabled(gradients):
                sys.setprofile(watch)
                try:
                    model(inputs)
                except Exception:  # the measurement reports it
                    return called
                finally:
                    _restore(before)
    return called


def _restore(profiler: Any) -> None:
    """Restore a profiler: a profiler in C, such as cProfile, is not a function, and restarts by `enable`."""
    if profiler is None or callable(profiler):
        sys.setprofile(profiler)
    else:
        sys.setprofile(None)
        profiler.enable()
