"""Two processes train like one."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from test_kill import PRELOADED
from torch import Tensor, nn

import unperturbed
from support import regularisers
from support.examples import pick
from support.regularisers import CASES, Alone, Gradient, check_agrees, noise_of, trained_gradient
from support.toys import Stopped, blobs, equal, mlp, state, stop_at, without_seconds
from unperturbed import runs
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import EpochEnd, Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.dale import DALE, DALELaplacian
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.prl import PRL
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.term import TERM
from unperturbed.methods.trades import TRADES
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch

THREAT = Threat("Linf", 0.05)


def network(norm: bool) -> nn.Sequential:
    """Return a network in train mode; its batch norm, if it has one, is frozen in eval mode."""
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(16).eval()] if norm else []
    for frozen in middle:
        frozen.running_mean.uniform_(-0.5, 0.5)
        frozen.running_var.uniform_(0.5, 1.5)
    return nn.Sequential(nn.Linear(6, 16), *middle, nn.ReLU(), nn.Linear(16, 3)).double()


def one_step(fabric: Fabric, method: Method, norm: bool, rank: int, world: int, parts: int = 1) -> dict[str, Tensor]:
    """Return the weights after a step of plain descent with rate 1: those before, less the gradient."""
    model = network(norm)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    x, y = blobs(24)
    rows = torch.arange(24)[rank::world]
    batch = Batch(x[rows].double(), y[rows], rows)
    noise = Noise.of(0, rows)
    optimisation_step(fabric, InPrecision(model), wrapped, optimiser, method, batch, THREAT, noise, parts=parts)
    return state(model)


def join_in(rank: int, port: int) -> None:
    """Make this process one of two."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= place | {"WORLD_SIZE": "2"}


def take_part(rank: int, port: int, method: Method, norm: bool, folder: Path) -> None:
    join_in(rank, port)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
    fabric.launch()
    assert fabric.world_size == 2 and fabric.global_rank == rank
    save_file(one_step(fabric, method, norm, rank, 2), folder / f"{rank}.safetensors")


def together(target: Callable[..., None], *arguments: object) -> None:
    """Run a function in two processes that find each other."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    both = [context.Process(target=target, args=(rank, port, *arguments)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(600)
    assert [process.exitcode for process in both] == [0, 0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "frozen batch norm"])
@pytest.mark.parametrize("make", [AT, TRADES, lambda: AWP(Constrained(LLR()))])
def test_two_processes_give_the_gradients_of_one(make: Callable[[], Method], norm: bool, tmp_path: Path) -> None:
    together(take_part, make(), norm, tmp_path)
    alone = one_step(Fabric(accelerator="cpu", devices=1, precision="64-true"), make(), norm, 0, 1)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    before = state(network(norm))
    assert max(float((alone[name] - before[name]).abs().max()) for name in before) > 1e-3
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-9, msg=name)


LIMITED: dict[str, Callable[[], Method]] = {
    "awp, constrained, llr": lambda: AWP(Constrained(LLR(), nominal_loss=0.3, dual_step=0.5, wait=0), gamma=0.05),
    "constrained scorpio": lambda: Constrained(SCORPIO(), nominal_loss=0.3, dual_step=0.5, wait=0),
    "constrained trades": lambda: Constrained(TRADES(), method_loss=0.3, dual_step=0.5, wait=0),
    "awp, free": lambda: AWP(Free(), gamma=0.05),
    "dale, per epoch": lambda: DALE.dual(0.3, every="epoch", dual_step=0.5, wait=0),
    "dale-laplacian": DALELaplacian,
    "prl": PRL,
    "term": TERM,
}


def three_steps(fabric: Fabric, rank: int, world: int, norm: bool) -> dict[str, Tensor]:
    """Return weights and shared memory after three steps and an epoch's end, of each of these methods."""
    found = {}
    x, y = blobs(24)
    rows = torch.arange(24)[rank::world]
    batch = Batch(x[rows].double(), y[rows], rows)
    for name, make in LIMITED.items():
        method, model = make(), network(norm)
        wrapped, optimiser = fabric.setup(InPrecision(model), torch.optim.SGD(model.parameters(), lr=0.5))
        for step in range(3):
            noise = Noise.of(0, rows).fold(step)
            optimisation_step(fabric, InPrecision(model), wrapped, optimiser, method, batch, THREAT, noise)
        method.after_epoch(EpochEnd(0.5, 100, 1.0))
        memory = {path: buffer for path, buffer in checkpoint.memory(method).items() if not path.endswith("delta")}
        found.update({f"{name}: {path}": value for path, value in {**state(model), **memory}.items()})
    return found


def take_three_steps(rank: int, port: int, norm: bool, folder: Path) -> None:
    join_in(rank, port)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
    fabric.launch()
    save_file(three_steps(fabric, rank, 2, norm), folder / f"{rank}.safetensors")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "frozen batch norm"])
def test_two_processes_perturb_weights_and_move_dual_variables_as_one(norm: bool, tmp_path: Path) -> None:
    """Dual variables are float32, and so is what Fabric's wrapper returns: some can agree no further than that."""
    together(take_three_steps, norm, tmp_path)
    alone = three_steps(Fabric(accelerator="cpu", devices=1, precision="64-true"), 0, 1, norm)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    for name, value in alone.items():
        tolerance = 1e-6 if "constrained" in name or name.startswith(("dale,", "term")) else 1e-9
        torch.testing.assert_close(
            first[name], value, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}", equal_nan=True
        )
    duals = [float(value) for name, value in alone.items() if name.endswith("dual")]
    assert len(duals) == 4 and all(abs(dual - 1) > 0.05 for dual in duals)


REFUSED = {"llr in parts, gap", "llr in parts, slope"}
"""Ways to compute forwards again during the backward."""


def regularise(fabric: Fabric, batch_norm: str, rank: int, world: int) -> Gradient:
    """Return the weight gradients of all regularisers that this many processes are not refused."""
    whole, found = regularisers.BATCH, {}
    batch = pick(Batch(whole.x.double(), whole.y, whole.ids), torch.arange(len(whole.x))[rank::world])
    for name, case in CASES.items():
        attacked = InPrecision(regularisers.network(case, batch_norm, torch.float64))
        method = case.make()
        if world > 1 and name in REFUSED:
            with pytest.raises(InputError, match="not with several processes"):
                method.check(attacked, batch, regularisers.THREAT, noise_of(batch))
            continue
        method.check(attacked, batch, regularisers.THREAT, noise_of(batch))
        gradient = trained_gradient(Alone(method, case.term), attacked, batch, fabric)
        found.update({f"{name}: {path}": value for path, value in gradient.items()})
    return found


def regularise_together(rank: int, port: int, batch_norm: str, folder: Path) -> None:
    join_in(rank, port)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
    fabric.launch()
    save_file(regularise(fabric, batch_norm, rank, 2), folder / f"{rank}.safetensors")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["none", "frozen"])
def test_two_processes_give_the_regularisers_gradients_of_one_s24(batch_norm: str, tmp_path: Path) -> None:
    """Or are refused."""
    together(regularise_together, batch_norm, tmp_path)
    alone = regularise(Fabric(accelerator="cpu", devices=1, precision="64-true"), batch_norm, 0, 1)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    assert {path.split(":")[0] for path in first} == CASES.keys() - REFUSED
    check_agrees(first, {path: alone[path] for path in alone if path.split(":")[0] not in REFUSED}, 1e-6)


SCRIPT = """
import sys
from pathlib import Path
from test_processes import train_at

if __name__ == "__main__":
    train_at(Path(sys.argv[1]), devices=2)
"""


def train_at(folder: Path, devices: int) -> None:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=4, batch_size=18, lr=0.05, precision="64", averaging=0.5)
    more = blobs(30, seed=5)
    train(mlp(6, 3), blobs(120), THREAT, AT(), recipe, out=folder, device="cpu", devices=devices, extra=more)


@pytest.mark.long
@pytest.mark.slow
def test_training_with_two_processes_is_training(tmp_path: Path) -> None:
    """A script starts its second process by itself."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    here = Path(__file__).parent
    paths = (Path(str(unperturbed.__file__)).parents[1], here.parent, here)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(tmp_path / "two")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    train_at(tmp_path / "one", devices=1)
    for name in (runs.MODEL, runs.BEST):
        expected, found = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=key)
    one, two = (runs.read_jsonl(tmp_path / out / runs.METRICS) for out in ("one", "two"))
    assert one[-1]["probe/many_steps"] == two[-1]["probe/many_steps"] > 0.5
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-6)


def train_free(rank: int, port: int, folder: Path, resume: bool, stop: int) -> None:
    join_in(rank, port)
    recipe = Recipe(epochs=4, batch_size=18)
    with suppress(Stopped):
        train(
            mlp(6, 3, dropout=0.2), blobs(120), THREAT, Free(), recipe,
            out=folder, resume=resume, device="cpu", devices=2, progress=stop_at(stop),
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_resume_with_the_memory_and_randomness_of_each(tmp_path: Path) -> None:
    """Free keeps a perturbation for each process, and dropout draws other numbers in each."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    together(train_free, straight, False, -1)
    together(train_free, stopped, False, 15)
    assert (stopped / runs.CHECKPOINT).exists() and not (stopped / runs.RESULT).exists()
    with pytest.raises(InputError, match="begun with devices=2, not 1: resume it so"):
        train(
            mlp(6, 3, dropout=0.2), blobs(120), THREAT, Free(), Recipe(epochs=4, batch_size=18),
            out=stopped, resume=True, device="cpu",
        )  # fmt: skip
    together(train_free, stopped, True, -1)
    for name in (runs.MODEL, runs.BEST):
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()
    lines, expected = (runs.read_jsonl(folder / runs.METRICS) for folder in (stopped, straight))
    assert without_seconds(lines) == without_seconds(expected)


def train_to_the_end(rank: int, port: int, folder: Path) -> None:
    join_in(rank, port)
    model = mlp(6, 3, norm=True)
    model[1].momentum = 0.9
    recipe = Recipe(epochs=4, batch_size=20, validation=0.5, schedule="constant", seed=1)
    trained = train(model, blobs(400), Threat("Linf", 0.2), AT(), recipe, device="cpu", devices=2)
    told = {name: value for name, value in trained.json().items() if name != "seconds"}
    runs.write_json(folder / f"{rank}.json", told)


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_take_the_same_epoch_for_the_best(tmp_path: Path) -> None:
    """Each has running averages of its own: were they to judge by those, one would stop and the other wait for it."""
    together(train_to_the_end, tmp_path)
    first, second = ((tmp_path / f"{rank}.json").read_text() for rank in range(2))
    assert first == second
