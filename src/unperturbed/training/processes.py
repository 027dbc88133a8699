"""The processes of a run: their start, their group, and the sharing of gradients and weights among them."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from unperturbed.anatomy.blocks import blocks
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.networks.device import check_devices
from unperturbed.networks.dtype import home
from unperturbed.networks.precision import InPrecision
from unperturbed.training.prepare import make_optimiser, strategy_for
from unperturbed.training.recipe import Recipe
from unperturbed.types import Inputs

Strategy = Literal["ddp", "fsdp"]


class Joined(ClusterEnvironment):
    """The processes of an initialised `torch.distributed` group, such as one that Ray Train has started."""

    @property
    def creates_processes_externally(self) -> bool:
        """Return True: they run already."""
        return True

    @property
    def main_address(self) -> str:
        """The address at which the group met."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """The port at which the group met."""
        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        """Tell whether this process belongs to a group of several."""
        return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

    def world_size(self) -> int:
        """Return the size of the group."""
        return distributed.get_world_size()

    def set_world_size(self, size: int) -> None:
        """Keep the size of the group."""

    def global_rank(self) -> int:
        """Return the rank in the group."""
        return distributed.get_rank()

    def set_global_rank(self, rank: int) -> None:
        """Keep the rank in the group."""

    def local_rank(self) -> int:
        """Return the rank among the processes of this node."""
        return int(os.environ.get("LOCAL_RANK", distributed.get_rank()))

    def node_rank(self) -> int:
        """Return the number of this node."""
        return int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))


def make_fabric(
    target: torch.device,
    devices: int,
    nodes: int,
    strategy: Strategy,
    classifier: nn.Module,
    data: Data,
    recipe: Recipe,
) -> Fabric:
    """Return Fabric for `devices` processes on each of `nodes` nodes; with one process, `strategy` has no effect.

    The processes are those of an initialised `torch.distributed` group, of torchrun, or of srun in a job of SLURM.
    Without any of these, this process starts the others of its node.

    Raises:
        InputError: for more devices than the machine has, for numbers that are not those of the started processes, and
        for settings of the recipe that sharded weights do not support.
    """
    _check_started(devices, nodes)
    if not Joined.detect():
        check_devices(devices, target)
    if devices * nodes == 1:
        return Fabric(accelerator=target.type, devices=1 if target.index is None else [target.index])
    if strategy == "fsdp":
        _check_sharding(recipe)
    shared: Any = strategy_for(classifier, data) if strategy == "ddp" else _sharding(classifier, data, devices * nodes)
    plugins = Joined() if Joined.detect() else None
    if plugins is not None:  # its launcher has placed the processes
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        nodes = max(plugins.world_size() // devices, 1)
    return Fabric(accelerator=target.type, devices=devices, num_nodes=nodes, strategy=shared, plugins=plugins)


def _check_started(devices: int, nodes: int) -> None:
    """Raise InputError if processes of the launcher would be missing; a single one may be one of a sweep's runs."""
    if nodes < 1:
        raise InputError(f"nodes is {nodes}, but a run takes at least 1.")
    if devices * nodes == 1:
        return
    if nodes > 1 and _started() is None and "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"--nodes is {nodes}, but this process does not know the others: start them by torchrun or srun, or set "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK on each node."
        )
    check_launcher(devices, nodes)


def check_launcher(devices: int, nodes: int) -> None:
    """Raise InputError if a launcher has started another number of processes."""
    started = _started()
    if started is not None and started[1] != devices * nodes:
        launcher, number = started
        raise InputError(
            f"{launcher} has started {number} processes, but --devices {devices} on --nodes {nodes} are "
            f"{devices * nodes}: give the number of processes on a node and the number of nodes."
        )


def under_torchrun(fabric: Fabric) -> bool:
    """Tell whether torchrun has started this process as one of several of a run."""
    return fabric.world_size > 1 and TorchElasticEnvironment.detect() and not Joined.detect()


def _started() -> tuple[str, int] | None:
    """Return the launcher of this process and the number of its processes; None: it was started alone."""
    if Joined.detect():
        return "The process group", distributed.get_world_size()
    if TorchElasticEnvironment.detect():
        return "torchrun", int(os.environ["WORLD_SIZE"])
    in_job = "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return ("srun", int(os.environ["SLURM_NTASKS"])) if in_job else None


def _check_sharding(recipe: Recipe) -> None:
    """Raise InputError for settings that sharded weights do not support."""
    for name, value in (("averaging", recipe.averaging), ("compile", recipe.compile or None)):
        if value is not None:
            raise InputError(f"--{name} is {value}, which --strategy fsdp does not support: leave one of the two out.")


def _sharding(classifier: nn.Module, data: Data, processes: int) -> ModelParallelStrategy:
    """Return the strategy that shards the weights of every block, and those outside of blocks, over the processes."""
    paths = block_paths(classifier, data.train.inputs(torch.arange(3) % len(data.train)).to(*home(classifier)))
    return ModelParallelStrategy(partial(_shard, paths=paths), data_parallel_size=processes, tensor_parallel_size=1)


def block_paths(classifier: nn.Module, x: Inputs) -> tuple[str, ...]:
    """Return the paths of the network's blocks of several layers, which are sharded and recomputed one by one."""
    found, _ = blocks(classifier, x)
    paths = dict.fromkeys(block.path for block in found if block.path)
    return tuple(path for path in paths if any(True for _ in classifier.get_submodule(path).children()))


def _shard(module: InPrecision, mesh: DeviceMesh, paths: Sequence[str]) -> nn.Module:
    """Shard the blocks of a network, and the rest of it, in place."""
    over = mesh["data_parallel"]
    for path in paths:
        fully_shard(module.network.get_submodule(path), mesh=over)
    fully_shard(module.network, mesh=over)
    return module


def is_sharded(fabric: Fabric) -> bool:
    """Tell whether the processes share the weights, too."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def set_up(fabric: Fabric, attacked: InPrecision, recipe: Recipe) -> tuple[Any, Any]:
    """Return the network in Fabric's wrapper and its optimiser; sharding changes the network in place."""
    if not is_sharded(fabric):
        wrapped, optimiser = fabric.setup(attacked, make_optimiser(attacked.network, recipe))
        return wrapped, optimiser
    wrapped = fabric.setup_module(attacked)
    return wrapped, fabric.setup_optimizers(make_optimiser(attacked.network, recipe))
