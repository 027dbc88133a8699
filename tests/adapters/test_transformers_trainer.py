"""`RobustTrainer` and its callback, with a real `transformers.Trainer` and a real model."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unperturbed.data.sources import load_data
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.free import Free
from unperturbed.threat import Threat
from unperturbed.training.robust_loss import robust_loss

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra transformers)")
pytest.importorskip("accelerate", reason="accelerate is not installed (extra transformers)")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and accelerate warn of their dependencies
THREAT = Threat("Linf", 0.1)


def network() -> Any:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=10
    )
    return transformers.ResNetForImageClassification(config)


def rows(count: int) -> list[dict[str, Tensor]]:
    split = load_data("digits").train
    return [{"pixel_values": split.x[k], "labels": split.y[k]} for k in range(count)]


def trainer(folder: Path, method: Any = None, callbacks: Any = (), model: Any = None, **settings: Any) -> Any:
    from unperturbed.adapters.transformers import RobustTrainer

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True,
        **{"per_device_train_batch_size": 16, "max_steps": 4, "save_strategy": "no", **settings},
    )  # fmt: skip
    return RobustTrainer(
        model or network(), arguments, threat=THREAT, method=method or AT(PGD(steps=1)), train_dataset=rows(64),
        eval_dataset=rows(32), callbacks=list(callbacks),
    )  # fmt: skip


def test_its_loss_in_training_is_the_robust_loss_and_in_evaluation_its_usual_one(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    batch = transformers.default_data_collator(rows(8))
    model = made.model.train()
    made.state.max_steps = 10
    made.state.global_step = 9
    same = deepcopy(model)  # the loss moves the running averages, which the next attack would see
    found = made.compute_loss(model, batch)
    expected = robust_loss(
        AT(PGD(steps=1)), same, batch["pixel_values"], batch["labels"], THREAT, step=9, seed=42, output="logits"
    )
    torch.testing.assert_close(found, expected)
    usual = made.compute_loss(model.eval(), batch)
    torch.testing.assert_close(
        usual, torch.nn.functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
    )


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """With eps 0, where random starts do not matter, and without the statistics of batches."""
    weights = []
    for size, accumulated in ((16, 1), (8, 2)):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        for value in model.parameters():
            torch.nn.init.zeros_(value)

        class Named(torch.nn.Module):
            def __init__(self, inner: torch.nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **others: Any) -> dict[str, Tensor]:
                return {"logits": self.inner(pixel_values)}

        made = trainer(
            tmp_path, model=Named(model), max_steps=1, gradient_accumulation_steps=accumulated, learning_rate=1.0,
            per_device_train_batch_size=size, optim="sgd", max_grad_norm=0, remove_unused_columns=False,
        )  # fmt: skip
        made.threat = Threat("Linf", 0.0)
        made.train()
        weights.append(model[1].weight.detach())
    torch.testing.assert_close(weights[0], weights[1])
    assert weights[0].abs().max() > 1e-3


def test_the_callback_adds_accuracies_that_the_best_model_is_chosen_by(tmp_path: Path) -> None:
    from unperturbed.adapters.transformers import RobustAccuracy

    split = load_data("digits").train
    look = RobustAccuracy((split.x[:64], split.y[:64]), THREAT)
    made = trainer(
        tmp_path, callbacks=[look], max_steps=8, eval_strategy="steps", eval_steps=4, save_strategy="steps",
        save_steps=4, load_best_model_at_end=True, metric_for_best_model="eval_robust_accuracy", greater_is_better=True,
        learning_rate=0.01,
    )  # fmt: skip
    made.train()
    logged = [line["eval_robust_accuracy"] for line in made.state.log_history if "eval_robust_accuracy" in line]
    assert len(logged) == 2 and made.state.best_metric == max(logged)
    assert look.held_out.probe(made.model, "logits").many_steps == max(logged)


def test_eps_grows_and_random_starts_differ_from_step_to_step(tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(AT):
        ramp = 0.5

        def perturb(self, model: Any, batch: Any, threat: Threat, noise: Any) -> Any:
            seen.append(threat.eps)
            return super().perturb(model, batch, threat, noise)

    trainer(tmp_path, Watched(PGD(steps=1))).train()
    assert seen == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Free uses every batch"):
        trainer(tmp_path, Free())
    made = trainer(tmp_path)
    with pytest.raises(InputError, match="not pixel_values"):
        made.compute_loss(made.model.train(), {"x": torch.zeros(1), "labels": torch.zeros(1)})
