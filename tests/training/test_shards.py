"""Training with weights in shards: the gradients, the weights and the results of one process."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from studies.networks import SmallViT
from test_processes import join_in, together
from torch import Tensor, nn

from support.toys import Stopped, equal, state, stop_at, without_seconds
from unperturbed import runs
from unperturbed.data.convert import as_data
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.prl import PRL
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.checkpoint import holds
from unperturbed.training.loop import train
from unperturbed.training.processes import make_fabric
from unperturbed.training.recipe import Recipe
from unperturbed.training.shards import forget_others, in_one_piece
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Inputs, Labels, Model, Terms

THREAT = Threat("Linf", 0.1)
METHODS: dict[str, Callable[[], Method]] = {
    "at": AT,
    "trades": TRADES,
    "prl": lambda: PRL(samples=4),
    "scorpio": SCORPIO,
    "llr": lambda: LLR(form="differences"),
}


def transformer() -> SmallViT:
    torch.manual_seed(0)
    return SmallViT(width=16, depth=1)


def images(n: int) -> tuple[Inputs, Labels]:
    """Return images of three classes, which differ in their brightness."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    return (torch.rand(n, 1, 28, 28, generator=generator) + y.view(-1, 1, 1, 1)) / 3, y


def one_step(fabric: Fabric, method: Method, parts: int = 1) -> dict[str, Tensor]:
    """Return the weights in one piece after a step of plain descent with rate 1, in float64."""
    model, rank, world = transformer().double(), fabric.global_rank, fabric.world_size
    attacked = InPrecision(model)
    wrapped = fabric.setup_module(attacked)
    optimiser = fabric.setup_optimizers(torch.optim.SGD(attacked.parameters(), lr=1.0))
    x, y = images(8)
    rows = torch.arange(8)[rank::world]
    batch = Batch(x[rows].double(), y[rows], rows)
    wrapped.train()
    optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, THREAT, Noise.of(0, rows), 1e6, parts)
    return {name: in_one_piece(weight) for name, weight in state(model).items()}


def take_steps(rank: int, port: int, folder: Path) -> None:
    join_in(rank, port)
    fabric = make_fabric(torch.device("cpu"), 2, 1, "fsdp", transformer(), as_data(images(8)), Recipe())
    fabric.launch()
    for name, make in METHODS.items():
        save_file(one_step(fabric, make()), folder / f"{name}-{rank}.safetensors")
    save_file(one_step(fabric, AT(), parts=2), folder / f"parts-{rank}.safetensors")


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_with_shards_give_the_gradients_of_one(tmp_path: Path) -> None:
    together(take_steps, tmp_path)
    before = state(transformer().double())
    for name, make in {**METHODS, "parts": AT}.items():
        alone = one_step(Fabric(accelerator="cpu", devices=1), make())
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in range(2))
        assert equal(first, second)
        assert max(float((alone[key] - before[key]).abs().max()) for key in before) > 1e-3
        for key, value in alone.items():
            torch.testing.assert_close(first[key], value, rtol=0, atol=1e-6, msg=f"{name}: {key}")


def train_in_shards(rank: int, port: int, folder: Path, name: str, resume: bool, stop: int) -> None:
    join_in(rank, port)
    go(folder, METHODS[name](), devices=2, resume=resume, stop=stop)


def go(folder: Path, method: Method, devices: int, resume: bool = False, stop: int = -1) -> None:
    recipe = Recipe(epochs=2, batch_size=8, lr=0.01, checkpoint_minutes=0, precision="64")
    with suppress(Stopped):
        train(
            transformer(), images(40), THREAT, method, recipe,
            out=folder, resume=resume, device="cpu", devices=devices, strategy="fsdp", progress=stop_at(stop),
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_a_run_in_shards_is_a_run_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """The files are those of any run; only the checkpoint is in shards, of which the last two are kept."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    together(train_in_shards, straight, "at", False, -1)
    together(train_in_shards, stopped, "at", False, 6)
    shards = sorted(path.name for path in (stopped / runs.CHECKPOINT).parent.glob("shards-*"))
    assert shards == ["shards-4", "shards-5"] and not (stopped / runs.RESULT).exists()
    together(train_in_shards, stopped, "at", True, -1)
    for name in (runs.MODEL, runs.BEST):
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()
    lines, expected = (runs.read_jsonl(folder / runs.METRICS) for folder in (stopped, straight))
    assert without_seconds(lines) == without_seconds(expected)
    assert [path.name for path in (straight / runs.CHECKPOINT).parent.glob("shards-*")] == ["shards-8"]

    go(tmp_path / "one", AT(), devices=1)
    for key, value in load_file(tmp_path / "one" / runs.MODEL).items():
        torch.testing.assert_close(load_file(straight / runs.MODEL)[key], value, rtol=0, atol=1e-6, msg=key)
    with pytest.raises(InputError, match="begun with the other --strategy"):
        go(stopped, AT(), devices=1, resume=True)


def try_refused(rank: int, port: int, folder: Path) -> None:
    join_in(rank, port)
    refused: dict[str, Method] = {"llr": LLR(), "awp": AWP(), "constrained": Constrained(LLR())}
    for name, method in refused.items():
        with pytest.raises(InputError, match=f"{name} cannot be trained with --strategy fsdp"):
            go(folder / name, method, devices=2)
        assert not (folder / name / runs.CONFIG).exists()


class Holding(nn.Module, Method):
    """Adversarial training that holds the network."""

    name = "holding"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return AT().perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        return AT().loss(model, batch, inner, threat, noise)


def test_a_method_that_holds_the_network_is_recognised() -> None:
    """With shards, it would hold the first weights: a run refuses it."""
    model = transformer()
    assert holds(Holding(model), model) and holds(AWP(Holding(model)), model)
    assert not holds(AT(), model) and not holds(Holding(transformer()), model)


@pytest.mark.long
@pytest.mark.slow
def test_methods_that_need_whole_weights_or_second_derivatives_are_refused_by_name(tmp_path: Path) -> None:
    together(try_refused, tmp_path)


def train_by_ddp(rank: int, port: int, folder: Path, free: bool) -> None:
    join_in(rank, port)
    with suppress(Stopped):
        train(
            transformer(), images(40), THREAT, Free() if free else AT(), Recipe(epochs=2, batch_size=8, precision="64"),
            out=folder, device="cpu", devices=2, progress=stop_at(6),
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes_and_says_so(tmp_path: Path) -> None:
    together(train_by_ddp, tmp_path / "at", False)
    trained = train(
        transformer(), images(40), THREAT, AT(), Recipe(epochs=2, batch_size=8, precision="64"),
        out=tmp_path / "at", resume=True, device="cpu",
    )  # fmt: skip
    assert any("devices=1 instead of 2" in text for text in trained.warnings)
    straight = train(
        transformer(), images(40), THREAT, AT(), Recipe(epochs=2, batch_size=8, precision="64"), device="cpu"
    )
    for one, other in zip(trained.model.parameters(), straight.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    losses = [line["loss"] for line in runs.read_jsonl(tmp_path / "at" / runs.METRICS)]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_only_the_last_folders_of_shards_are_kept(tmp_path: Path) -> None:
    """A later one than this step is of a run that was interrupted while writing."""
    for step in (5, 10, 15, 20):
        (tmp_path / f"shards-{step}").mkdir()
    (tmp_path / "shards-notes").mkdir()
    forget_others(tmp_path, 2, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards-10", "shards-15", "shards-notes"]
