"""Weights and optimiser in shards: in one piece, and in checkpoints."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

PREFIX = "shards-"
"""The beginning of the names of folders, before the number of the step."""


def in_one_piece(tensor: Tensor) -> Tensor:
    """Return a tensor of which each process holds a shard as a whole, in the memory of the processor."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu()


def reshard(network: nn.Module) -> None:
    """Free the gathered weights of a network in shards; the next forward gathers them anew, with their requires_grad.

    After a forward without a backward, its outermost weights stay gathered. If they were frozen in that forward, they
    would stay frozen in the next one, and get no gradient.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def save(folder: Path, step: int, network: nn.Module, optimiser: Optimizer) -> str:
    """Write the shards of all processes into a folder, and return its name; all processes call it together.

    The format is that of `torch.distributed.checkpoint`, which another number of processes can read.
    """
    name = f"{PREFIX}{step}"
    save_shards(_state(network, optimiser), checkpoint_id=folder / name)
    return name


def load(path: Path, network: nn.Module, optimiser: Optimizer) -> None:
    """Restore network and optimiser from a folder of `save`; all processes call it together."""
    state = _state(network, optimiser)
    load_shards(state, checkpoint_id=path)
    set_state_dict(network, optimiser, model_state_dict=state["network"], optim_state_dict=state["optimiser"])


def forget_others(folder: Path, kept: int, step: int) -> None:
    """Remove all folders of shards but the last ones, of this step and before."""
    numbers = {int(name): path for path in folder.glob(f"{PREFIX}*") if (name := path.name[len(PREFIX) :]).isdecimal()}
    last = sorted(number for number in numbers if number <= step)[-kept:]
    for number in numbers.keys() - set(last):
        shutil.rmtree(numbers[number], ignore_errors=True)


def _state(network: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """Return the state with this process's shards."""
    weights, moments = get_state_dict(network, optimiser)
    return {"network": weights, "optimiser": moments}


def plain(optimiser: Any) -> Optimizer:
    """Return the optimiser inside of Fabric's wrapper."""
    inside: Optimizer = optimiser.optimizer
    return inside
