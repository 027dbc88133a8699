"""Train a run by the workers of Ray Train, on one machine or a cluster.

    pip install "ray[train]"
    python ray_train.py DATA OUT WORKERS [ADDRESS]

All nodes must see the folder OUT; the same command resumes. ADDRESS is that of a cluster ("auto" on one of its
machines); without it, Ray is started on this machine.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict[str, Any]) -> None:
    """Train as one of the workers; `train` joins their group."""
    import torch  # here, since Ray cannot send a function with this module among its globals

    import unperturbed as un
    from unperturbed.architectures.small_cnn import SmallCNN

    data, out = un.load_data(settings["data"]), Path(settings["out"])
    torch.manual_seed(0)
    model = SmallCNN(tuple(data.train.shape), classes=len(data.classes))
    un.train(
        model, data, un.Threat("Linf", 0.1), un.AT(), un.Recipe(**settings["recipe"]),
        out=out, resume=True, devices=settings["workers"],
    )  # fmt: skip


def train_on(workers: int, data: str, out: Path, **recipe: Any) -> None:
    """Train by so many workers of the connected cluster, with these settings of the recipe."""
    gpus = ray.cluster_resources().get("GPU", 0) >= workers
    settings = {"data": data, "out": str(out.absolute()), "workers": workers, "recipe": recipe}
    TorchTrainer(
        work,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=f"{out.absolute()}-ray"),
    ).fit()


def main() -> None:
    """Connect to the cluster, and train."""
    data, out, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    ray.init(address=sys.argv[4] if len(sys.argv) > 4 else "local")
    train_on(workers, data, out, epochs=2)


if __name__ == "__main__":
    main()
