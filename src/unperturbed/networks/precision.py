"""The choice of bfloat16 and channels-last, in training and in searches.

All reported numbers are computed in float32 or float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unperturbed.errors import InputError
from unperturbed.networks.modes import eager, is_eager
from unperturbed.networks.settings import Compile, Layout, compiled_in_words
from unperturbed.types import Inputs, Logits

Requested = Literal["auto", "32", "bf16", "64"]
_full = ContextVar("full", default=False)


@dataclass(frozen=True)
class Precision:
    """How a network runs: the precision by its name in Fabric, the memory format, the type of the inputs, compiled."""

    name: Literal["32-true", "bf16-mixed", "64-true"]
    memory_format: torch.memory_format
    dtype: torch.dtype
    compiled: Compile = False

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of products, if it differs from the type of the inputs."""
        return torch.bfloat16 if self.name == "bf16-mixed" else None

    def __str__(self) -> str:
        """Return the words for tables and records: "float32, channels-last, compiled"."""
        product = {"32-true": "float32", "bf16-mixed": "bfloat16", "64-true": "float64"}[self.name]
        layout = "channels-last" if self.memory_format == torch.channels_last else "contiguous"
        return ", ".join([product, layout, *compiled_in_words(self.compiled)])


class InPrecision(nn.Module):
    """A network in the precision of training or of a search, compiled on request.

    Its logits have the type of the inputs, and images are converted to `memory_format`. With `compiled_size`, only
    batches of this many examples run compiled: one shape never depends on the shapes before it, as torch's choice of
    dynamic shapes does, and small rests are not worth a compilation.

    Fabric's autocast cannot be switched off for one forward or for `torch.autograd.grad`; this one can, by `plainly`.
    """

    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        autocast: torch.dtype | None = None,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        compile: Compile = False,
        compiled_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.autocast = autocast
        self.memory_format = memory_format
        self.compiled_size = compiled_size
        self.graphs = compile == "reduce-overhead"
        compiled: Any = torch.compile(network, mode="reduce-overhead") if self.graphs else None
        if compile and not self.graphs:
            compiled = torch.compile(network)
        self._compiled = [] if compiled is None else [compiled]  # in a list: its weights are listed once

    @property
    def is_compiled(self) -> bool:
        """Whether whole batches run compiled."""
        return bool(self._compiled)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        if self.memory_format == torch.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        fits = self.compiled_size is None or len(x) == self.compiled_size
        network = self._compiled[0] if self._compiled and fits and not is_eager() else self.network
        if self.autocast is None or _full.get():
            with torch.autocast(x.device.type, enabled=False):
                logits: Logits = network(x)
        else:
            with torch.autocast(x.device.type, self.autocast):
                logits = network(x)
            logits = logits.to(x.dtype)
        # the next run of a graph overwrites its outputs
        return logits.clone() if self.graphs and network is not self.network else logits


@contextmanager
def plainly() -> Iterator[None]:
    """Run training's networks eagerly and in the precision of their weights in this block.

    For derivatives along a direction and small differences of losses, which vanish in the rounding of bfloat16, and
    which compiled networks do not support.
    """
    token = _full.set(True)
    try:
        with eager():
            yield
    finally:
        _full.reset(token)


def choose(
    requested: Requested, model: nn.Module, device: torch.device, layout: Layout = "auto", compiled: Compile = False
) -> Precision:
    """Return the requested precision and layout, or for "auto" those of the rule below.

    The rule is fixed rather than timed, so that the same run chooses the same everywhere on the same hardware:
    bfloat16 autocast with channels-last for networks with 2-d convolutions where the processor or GPU multiplies
    bfloat16 natively, float32 elsewhere. `tuning.py` measures instead.

    Raises:
        InputError: for CUDA graphs on another device.
    """
    if compiled == "reduce-overhead" and device.type != "cuda":
        raise InputError(
            f"compile is 'reduce-overhead', which launches CUDA graphs, but the device is {device}: give true "
            "(--compile true), or a CUDA device."
        )
    images = convolutional(model)
    if requested == "64":
        chosen = Precision("64-true", torch.contiguous_format, torch.float64, compiled)
    elif requested == "bf16" or (requested == "auto" and images and _native_bfloat16(device)):
        chosen = Precision("bf16-mixed", _format(images), torch.float32, compiled)
    else:
        chosen = Precision("32-true", torch.contiguous_format, torch.float32, compiled)
    return chosen if layout == "auto" else replace(chosen, memory_format=_format(layout == "channels-last"))


def convolutional(model: nn.Module) -> bool:
    """Tell whether a network has 2-d convolutions, for which the memory layout matters."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products in float32 in this block, without TF32 or bfloat16, in forwards and backwards.

    The TF32 convolutions of GPUs round away small differences of losses. The settings are restored afterwards, and
    cuDNN stays off if the user has switched it off.
    """
    cudnn = torch.backends.cudnn
    with (
        _exact_products(),
        cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, benchmark_limit=cudnn.benchmark_limit,
            deterministic=cudnn.deterministic, allow_tf32=False,
        ),
    ):  # fmt: skip
        yield


@contextmanager
def as_reported(device: torch.device) -> Iterator[None]:
    """Compute in the precision of the tensors, without the caller's autocast, and without TF32 or bfloat16 for float32.

    The settings are restored afterwards, and cuDNN stays off if the user has switched it off.
    """
    cudnn = torch.backends.cudnn
    with (
        full_float32(),
        torch.autocast(device.type, enabled=False),
        cudnn.flags(
            enabled=cudnn.enabled, benchmark=False, benchmark_limit=cudnn.benchmark_limit,
            deterministic=True, allow_tf32=False,
        ),
    ):  # fmt: skip
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply and convolve float32 in float32 on the processor, and multiply so on GPUs."""
    owners = [(torch.backends.cuda, "matmul"), *((torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn"))]
    backends: list[Any] = [getattr(*owner, None) for owner in owners]
    settings = [setting for setting in backends if hasattr(setting, "fp32_precision")]  # from torch 2.9 on
    before = [setting.fp32_precision for setting in settings]
    try:
        overall = torch.get_float32_matmul_precision()
    except RuntimeError:  # the settings of the backends differ, so no common one exists
        overall = None
    try:
        torch.set_float32_matmul_precision("highest")
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        if overall is not None:
            torch.set_float32_matmul_precision(overall)
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):  # perhaps limited by the user
            return False
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
