"""Two processes do together what one does alone."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from test_kill import PRELOADED
from torch import Tensor, nn

import unperturbed
from toys import blobs, equal, state, without_seconds
from unperturbed import runs
from unperturbed.noise import Noise
from unperturbed.objectives.at import AT
from unperturbed.objectives.base import Objective
from unperturbed.objectives.trades import TRADES
from unperturbed.threat import Threat
from unperturbed.training.step import Attacked, optimisation_step
from unperturbed.types import Batch


def network(norm: bool) -> nn.Sequential:
    """Return a network in train mode; its batch norm, if it has one, is frozen in eval mode."""
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(16).eval()] if norm else []
    for frozen in middle:
        frozen.running_mean.uniform_(-0.5, 0.5)
        frozen.running_var.uniform_(0.5, 1.5)
    return nn.Sequential(nn.Linear(6, 16), *middle, nn.ReLU(), nn.Linear(16, 3)).double()


def one_step(fabric: Fabric, method: Objective, norm: bool, rank: int, world: int) -> dict[str, Tensor]:
    """Return the weights after a step of plain descent with rate 1: those before, less the gradient."""
    model = network(norm)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    x, y = blobs(24)
    rows = torch.arange(24)[rank::world]
    batch = Batch(x[rows].double(), y[rows], rows)
    threat, noise = Threat("Linf", 0.1), Noise.of(0, rows)
    optimisation_step(fabric, Attacked(model, fabric), wrapped, optimiser, method, batch, threat, noise)
    return state(model)


def take_part(method: Objective, norm: bool, rank: int, port: int, folder: Path) -> None:
    """Be one of two processes."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2"}
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
    fabric.launch()
    assert fabric.world_size == 2 and fabric.global_rank == rank
    save_file(one_step(fabric, method, norm, rank, 2), folder / f"{rank}.safetensors")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "frozen batch norm"])
@pytest.mark.parametrize("make", [AT, TRADES])
def test_two_processes_give_the_gradients_of_one(make: Callable[[], Objective], norm: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    both = [context.Process(target=take_part, args=(make(), norm, rank, port, tmp_path)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]

    alone = one_step(Fabric(accelerator="cpu", devices=1, precision="64-true"), make(), norm, 0, 1)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    before = state(network(norm))
    assert max(float((alone[name] - before[name]).abs().max()) for name in before) > 1e-3
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-9, msg=name)


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from toys import blobs, mlp, stop_at
from unperturbed import Recipe, Threat, train
from unperturbed.objectives.at import AT
from unperturbed.objectives.free import Free

if __name__ == "__main__":
    method, devices, out, resume, stop = sys.argv[1:]
    train(
        mlp(6, 3, dropout=0.2 if method == "free" else 0.0),
        blobs(120),
        Threat("Linf", 0.05),
        AT() if method == "at" else Free(),
        Recipe(epochs=4, batch_size=18, lr=0.02, precision="64", averaging=0.5),
        out=out,
        resume=resume == "resume",
        device="cpu",
        devices=int(devices),
        extra=blobs(30, seed=5),
        progress=stop_at(int(stop)),
    )
"""


def trained(folder: Path, method: str, devices: int, out: str, resume: str = "begin", stop: int = -1) -> Path:
    """Run the script above in processes of its own; return the run folder."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    home = Path(str(unperturbed.__file__)).parents[1]
    environment = os.environ | {
        "PYTHONPATH": f"{home}{os.pathsep}{Path(__file__).parents[1]}", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    words = [sys.executable, str(script), method, str(devices), str(folder / out), resume, str(stop)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=170)
    assert (done.returncode == 0) == (stop < 0), done.stderr
    assert stop < 0 or "Stopped" in done.stderr
    return folder / out


@pytest.mark.slow
def test_training_with_two_processes_is_training(tmp_path: Path) -> None:
    one, two = trained(tmp_path, "at", 1, "one"), trained(tmp_path, "at", 2, "two")
    for name in (runs.MODEL, runs.BEST):
        expected, found = load_file(one / name), load_file(two / name)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=key)
    results = [runs.read_jsonl(folder / runs.METRICS)[-1]["probe/many_steps"] for folder in (one, two)]
    assert results[0] == results[1] > 0.5


@pytest.mark.slow
def test_two_processes_resume_with_the_memory_and_randomness_of_each(tmp_path: Path) -> None:
    """Free keeps a perturbation for each process, and dropout draws other numbers in each."""
    straight = trained(tmp_path, "free", 2, "straight")
    stopped = trained(tmp_path, "free", 2, "stopped", stop=30)
    trained(tmp_path, "free", 2, "stopped", "resume")
    for name in (runs.MODEL, runs.BEST):
        assert equal(load_file(straight / name), load_file(stopped / name))
    lines, expected = (runs.read_jsonl(folder / runs.METRICS) for folder in (stopped, straight))
    assert without_seconds(lines) == without_seconds(expected)
