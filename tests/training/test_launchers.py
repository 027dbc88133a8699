"""Runs of several processes under torchrun, srun, in a given group and by hand are those of one process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from test_processes import REFUSED, THREAT, free_port, network, one_step, regularise, three_steps
from torch import Tensor

import unperturbed
from support.regularisers import CASES, check_agrees
from support.toys import blobs, equal, mlp
from unperturbed import runs
from unperturbed.data.convert import as_data
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.trades import TRADES
from unperturbed.training.loop import train
from unperturbed.training.processes import Joined, Strategy, make_fabric
from unperturbed.training.recipe import Recipe

CPU = torch.device("cpu")
HERE = Path(__file__).parent
PATHS = (Path(str(unperturbed.__file__)).parents[1], HERE.parent, HERE)
SCRIPT = """
import sys
from pathlib import Path
import test_launchers

getattr(test_launchers, sys.argv[1])(Path(sys.argv[2]))
"""


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process, without the variables of launchers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, PATHS)), "OMP_NUM_THREADS": "1"} | more


def under_torchrun(function: str, folder: Path) -> None:
    """Run a function of this module in two processes of torchrun."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    done = subprocess.run(
        [*launcher, str(script), function, str(folder)], env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def fabric_of_two() -> Fabric:
    """Return Fabric as a run makes it."""
    torch.set_num_threads(1)
    fabric = make_fabric(CPU, 2, 1, "ddp", network(False).float(), as_data(blobs(24)), Recipe())
    fabric.launch()
    assert fabric.world_size == 2
    return fabric


def all_gradients(fabric: Fabric, rank: int, world: int) -> dict[str, Tensor]:
    """Return the weights after steps of all methods, and the gradients of all regularisers."""
    found: dict[str, Tensor] = {}
    methods: dict[str, Method] = {"at": AT(), "trades": TRADES()}
    for name, method in methods.items():
        found |= {f"{name}: {path}": value for path, value in one_step(fabric, method, True, rank, world).items()}
    parts = one_step(fabric, AT(), True, rank, world, parts=2 if world > 1 else 1)
    found |= {f"at in parts: {path}": value for path, value in parts.items()}
    return found | three_steps(fabric, rank, world, True)


def take_steps(folder: Path) -> None:
    fabric = fabric_of_two()
    rank = fabric.global_rank
    save_file(all_gradients(fabric, rank, 2), folder / f"steps-{rank}.safetensors")
    save_file(regularise(fabric, "frozen", rank, 2), folder / f"terms-{rank}.safetensors")


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_gradients_of_one(tmp_path: Path) -> None:
    under_torchrun("take_steps", tmp_path)
    alone = Fabric(accelerator="cpu", devices=1)
    check_steps(tmp_path, all_gradients(alone, 0, 1))
    terms = regularise(alone, "frozen", 0, 1)
    first, second = (load_file(tmp_path / f"terms-{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    assert {path.split(":")[0] for path in first} == CASES.keys() - REFUSED
    check_agrees(first, {path: terms[path] for path in terms if path.split(":")[0] not in REFUSED}, 1e-6)


def check_steps(folder: Path, expected: Mapping[str, Tensor]) -> None:
    first, second = (load_file(folder / f"steps-{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    assert first.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            first[name], value, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}", equal_nan=True
        )


def train_briefly(folder: Path, devices: int, **processes: int) -> None:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=3, batch_size=18, lr=0.05, precision="64")
    train(mlp(6, 3), blobs(120), THREAT, AT(), recipe, out=folder, device="cpu", devices=devices, **processes)


def train_on_two_nodes(folder: Path) -> None:
    train_briefly(folder / "two", devices=1, nodes=2)


def check_run(folder: Path) -> None:
    """Compare a run of two processes with one of this process."""
    train_briefly(folder / "one", devices=1)
    for name in (runs.MODEL, runs.BEST):
        expected, found = (load_file(folder / place / name) for place in ("one", "two"))
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-9, msg=key)
    one, two = (runs.read_jsonl(folder / place / runs.METRICS) for place in ("one", "two"))
    assert len(two) == 3 and one[-1]["probe/many_steps"] == two[-1]["probe/many_steps"] > 0.5


def of_slurm(rank: int, port: int) -> dict[str, str]:
    """Return the variables of srun for a task of two nodes."""
    task = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "unperturbed"}
    return {"SLURM_JOB_ID": "1234", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port), **task, **job}


def by_hand(rank: int, port: int) -> dict[str, str]:
    """Return the variables that a user sets on each of two nodes."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("variables", [of_slurm, by_hand])
def test_two_nodes_of_slurm_or_by_hand_train_like_one_process(variables: object, tmp_path: Path) -> None:
    assert callable(variables)
    script, port = tmp_path / "script.py", free_port()
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), "train_on_two_nodes", str(tmp_path)]
    tasks = [
        subprocess.Popen(words, env=environment(**variables(rank, port)), stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [task.communicate(timeout=600)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], "\n".join(errors)
    check_run(tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_the_command_under_torchrun_trains_once_and_prints_once(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    options = [
        "--data",
        "digits",
        "--examples",
        "200",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    words = [sys.executable, *launcher, "-m", "unperturbed", "train", *options]
    done = subprocess.run([*words, "--devices", "2"], env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("To measure robust accuracy") == 1
    assert (tmp_path / "run" / runs.RESULT).exists()
    words[words.index(str(tmp_path / "run"))] = str(tmp_path / "other")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and not (tmp_path / "other").exists()
    assert "torchrun has started 2 processes, but --devices 1 on --nodes 1 are 1" in done.stderr


def join_a_group(folder: Path) -> None:
    """Train in a group that another library has initialised."""
    torch.distributed.init_process_group("gloo")
    assert Joined.detect()
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK"):
        os.environ.pop(name)
    train_briefly(folder / "two", devices=2)
    torch.distributed.destroy_process_group()


@pytest.mark.long
@pytest.mark.slow
def test_a_run_joins_the_processes_of_an_initialised_group(tmp_path: Path) -> None:
    under_torchrun("join_a_group", tmp_path)
    check_run(tmp_path)


def make(devices: int, nodes: int, **recipe: object) -> None:
    strategy: Strategy = "fsdp" if recipe else "ddp"
    make_fabric(CPU, devices, nodes, strategy, mlp(6, 3), as_data(blobs(24)), Recipe(**recipe))  # type: ignore[arg-type]


def test_numbers_that_are_not_those_of_the_started_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC")):
            monkeypatch.delenv(name)
    with pytest.raises(InputError, match="--nodes is 2, but this process does not know the others"):
        make(1, 2)
    with pytest.raises(InputError, match="nodes is 0"):
        make(1, 0)
    with pytest.raises(InputError, match="--averaging is 0.9, which --strategy fsdp does not support"):
        make(2, 1, averaging=0.9)
    with pytest.raises(InputError, match="--compile is True, which --strategy fsdp"):
        make(2, 1, compile=True)
    with monkeypatch.context() as torchrun:
        for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "0"}.items():
            torchrun.setenv(name, value)
        with pytest.raises(InputError, match="torchrun has started 4 processes, but --devices 2 on --nodes 1 are 2"):
            make(2, 1)
        make(1, 1)  # one of a sweep's runs
    for name, value in of_slurm(0, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="srun has started 2 processes, but --devices 2 on --nodes 2 are 4"):
        make(2, 2)
