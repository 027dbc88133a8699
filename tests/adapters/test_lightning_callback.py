"""The Lightning callback with Lightning's own trainer."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from support.toys import blobs, mlp
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import EpochEnd
from unperturbed.threat import Threat
from unperturbed.training.robust_loss import robust_loss

lightning = pytest.importorskip("lightning", reason="Lightning is not installed (extra lightning)")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of few workers and of its dependencies
THREAT = Threat("Linf", 0.1)
X, Y = blobs(60)


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        return robust_loss(AT(PGD(steps=1)), self.network, *batch, THREAT, step=self.global_step)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> None:
        self.log("loss_clean", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


class Listening(AT):
    """Keeps what it is given at the end of epochs."""

    ends: list[EpochEnd] = []

    def after_epoch(self, end: EpochEnd) -> None:
        self.ends.append(end)


@pytest.mark.parametrize("validates", [False, True])
def test_accuracies_are_logged_once_an_epoch_and_choose_the_checkpoint(validates: bool, tmp_path: object) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from unperturbed.adapters.lightning import RobustAccuracy

    method = Listening()
    method.ends.clear()
    look = RobustAccuracy((X[:20], Y[:20]), THREAT, method=method)
    best = ModelCheckpoint(dirpath=str(tmp_path), monitor="robust_accuracy", mode="max")
    trainer = lightning.Trainer(
        max_epochs=3, callbacks=[best, look], accelerator="cpu", logger=False, enable_progress_bar=False
    )
    loader = DataLoader(TensorDataset(X, Y), 20)
    module = Module()
    trainer.fit(module, loader, *([loader] if validates else []))
    result = look.held_out.probe(module)
    assert trainer.callback_metrics["robust_accuracy"] == pytest.approx(result.many_steps)
    assert trainer.callback_metrics["clean_accuracy"] == pytest.approx(result.clean)
    assert [end.done for end in method.ends] == pytest.approx([1 / 3, 2 / 3, 1])
    assert best.best_model_score is not None and best.best_model_score >= result.many_steps - 1e-6
