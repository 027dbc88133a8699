"""A Lightning callback that logs robust accuracy; it needs the extra `lightning`."""

from typing import Any

from torch import nn

from unperturbed.adapters.held_out import HeldOut, end_epoch
from unperturbed.errors import InputError
from unperturbed.methods.base import Method
from unperturbed.networks.logits import Output
from unperturbed.threat import Threat

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ImportError as error:
        raise InputError(
            "unperturbed.adapters.lightning needs Lightning, which is not installed: pip install 'unperturbed"
            "[lightning]'."
        ) from error


class RobustAccuracy(Callback):
    """Log `clean_accuracy` and `robust_accuracy` (under ten steps of PGD) on held-out examples after every epoch.

    It is a quick look, to choose weights by (`ModelCheckpoint(monitor="robust_accuracy", mode="max")`) and to see
    catastrophic overfitting; report what `evaluate` measures on other examples. Where the trainer validates, the
    values are logged after validation, elsewhere at the end of the training epoch.
    """

    def __init__(
        self,
        data: Any,
        threat: Threat,
        *,
        examples: int = 512,
        method: Method | None = None,
        output: Output = None,
        seed: int = 0,
    ) -> None:
        """Take the first `examples` of the data.

        Args:
            data: a `Split`, a pair (x, y) of arrays or tensors, or a map-style dataset of such pairs; examples that do
                not train.
            threat: the threat set.
            examples: how many, at most.
            method: a method with memory, whose `after_epoch` is called.
            output: which part of what the module's `forward` returns are the logits.
            seed: of the random starts.

        Raises:
            InputError: on data that is of another form, outside the bounds of the threat, or not finite.
        """
        super().__init__()
        self.held_out = HeldOut.of(data, threat, examples, seed)
        self.method, self.output = method, output

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe after validation, but not after the trainer's trial of it."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._log(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe at the end of an epoch where the trainer does not validate."""
        if not trainer.enable_validation:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, module: nn.Module) -> None:
        result = self.held_out.probe(module, self.output)
        module.log_dict(  # type: ignore[operator]
            {"clean_accuracy": result.clean, "robust_accuracy": result.many_steps},
            prog_bar=True,
            batch_size=result.n,
        )
        end_epoch(self.method, result, trainer.global_step / max(1, trainer.estimated_stepping_batches))
