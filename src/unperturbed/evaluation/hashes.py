"""Hashes and versions of everything that a result depends on."""

import hashlib
import platform
import re
from importlib import metadata

import torch
from torch import Tensor, nn

from unperturbed.data.split import Split
from unperturbed.networks.failures import isolate
from unperturbed.networks.files_read import files_read
from unperturbed.networks.fingerprint import describe
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs

_READ = 1024
_ANSWERED = 16
"""Number of examples whose logits identify a network."""


def device_kind(device: torch.device) -> str:
    """Return the kind of a device, such as "cpu (AVX512)" or a GPU with its name: on another, results may differ."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def version() -> str:
    """Return this package's version."""
    return metadata.version("unperturbed")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"unperturbed": version(), "torch": torch.__version__, "python": platform.python_version()}


def data_hash(split: Split) -> str:
    """Return a SHA-256 over the names, labels and inputs of the examples, in the order of their names."""
    digest = hashlib.sha256(str(tuple(split.shape)).encode())
    names = split.names()
    for ids in torch.split(names.argsort(stable=True), _READ):
        for values in (names[ids], split.labels[ids], split.inputs(ids)):
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """Return a SHA-256 of the names, shapes and values of the weights and buffers, including non-persistent ones."""
    digest, state = hashlib.sha256(), model.state_dict()
    unsaved = {name: value for name, value in model.named_buffers() if name not in state}
    for name, value in (state | unsaved).items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def network_hash(classifier: nn.Module, examples: Inputs, seed: int) -> tuple[str, tuple[str, ...]]:
    """Return a SHA-256 of a network, the same in any process, and the parts that it does not cover.

    It covers everything that the outputs can depend on (`describe`), the bits of its logits and input gradients at a
    few examples, computed by one thread, and the files that it reads in every forward. Parts that change with every
    forward, such as a counter, are left out.
    """
    first_examples, threads = examples[:_ANSWERED], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with under_attack(classifier):
            first, before = _answers(classifier, first_examples, seed), describe(classifier)
            with files_read() as read:  # in the first forward, libraries may read files that no answer depends on
                second = _answers(classifier, first_examples, seed)
            after = describe(classifier)
    finally:
        torch.set_num_threads(threads)
    digest = hashlib.sha256(before.hash(after).encode())
    digest.update(first if first == second else b"other answers each time")
    digest.update(repr(sorted(read().values())).encode())
    return digest.hexdigest(), before.doubts


def without_addresses(text: str) -> str:
    """Return the text without the memory addresses in default representations."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _answers(classifier: nn.Module, x: Inputs, seed: int) -> bytes:
    """Return the bits of the logits at x and of the gradient of a weighted sum of them."""

    def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = x[rows].clone().requires_grad_()
            logits = classifier(z)
            weights = torch.arange(1, logits.shape[1] + 1).to(logits).cos()
            (slope,) = torch.autograd.grad((logits * weights).sum(), z, materialize_grads=True)
        return logits.detach().cpu(), slope.cpu()

    with own_randomness(seed, x.device):
        parts, _ = isolate(answers, torch.arange(len(x)))
    digest = hashlib.sha256()
    for values in (tensor for rows, values_of_rows in parts for tensor in (rows, *values_of_rows)):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.digest()
