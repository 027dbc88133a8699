"""Robust training with Hugging Face's `Trainer`; it needs the extra `transformers`."""

from typing import Any

from torch import Tensor, nn

from unperturbed.adapters.held_out import HeldOut, end_epoch
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.networks.logits import Output
from unperturbed.threat import Threat
from unperturbed.training.checkpoint import move_memory
from unperturbed.training.robust_loss import robust_loss
from unperturbed.training.schedule import ramped

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise InputError(
        "unperturbed.adapters.transformers needs transformers and accelerate, which are not installed: pip install "
        "'unperturbed[transformers]'."
    ) from error


class RobustTrainer(Trainer):
    """A `Trainer` that minimises the loss of a robust training method; evaluation keeps its usual loss.

    With a trainer of your own, put it first among the bases: `class Mine(RobustTrainer, MyTrainer)`. eps grows over
    the share of the run that the method asks for (`method.ramp`). Gradients accumulate as usual. It trains in one
    process. The threat is in the units of the model's inputs: leave normalisation to the model (`do_normalize=False`
    in the image processor).
    """

    def __init__(
        self,
        *args: Any,
        threat: Threat,
        method: Method | None = None,
        inputs: str = "pixel_values",
        labels: str = "labels",
        output: Output = "logits",
        **kwargs: Any,
    ) -> None:
        """Take what `Trainer` takes, and in addition:

        Args:
            threat: the threat set; inputs must lie within its bounds.
            method: what is minimised; None: `AT()`.
            inputs: the key of a batch that holds the inputs to perturb, the model's first argument.
            labels: the key of a batch that holds the labels.
            output: which part of what the model returns are the logits.

        Raises:
            InputError: on several processes or GPUs, and on a method that uses a batch several times (`Free`).
        """
        super().__init__(*args, **kwargs)
        self.threat, self.method = threat, method or AT()
        self.keys, self.output = (inputs, labels), output
        self.batches_seen = 0
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise InputError(
                f"RobustTrainer trains in one process on one device, but there are {self.args.world_size} processes "
                f"and {self.args.n_gpu} GPUs: set CUDA_VISIBLE_DEVICES to one, or use unperturbed.train(devices=...)."
            )
        if self.method.repeats > 1:
            raise InputError(
                f"{type(self.method).__name__} uses every batch {self.method.repeats} times, which Trainer does not: "
                "give another method, or use unperturbed.train."
            )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch: accumulation divides it
        move_memory(self.method, self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the method's loss in training, and the usual loss in evaluation."""
        if not model.training or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        missing = [key for key in self.keys if key not in inputs]
        if missing:
            raise InputError(f"A batch has {', '.join(inputs)}, but not {missing[0]}: name its keys (inputs, labels).")
        share = self.state.global_step / max(1, self.state.max_steps)
        step = max(self.batches_seen, self.state.global_step * self.args.gradient_accumulation_steps)
        self.batches_seen = step + 1
        return robust_loss(
            self.method,
            model,
            inputs[self.keys[0]],
            inputs[self.keys[1]],
            ramped(self.threat, self.method.ramp, share),
            step=step,
            seed=self.args.seed,
            output=self.output,
        )


class RobustAccuracy(TrainerCallback):
    """Add `eval_clean_accuracy` and `eval_robust_accuracy` (under ten steps of PGD) to the metrics of each evaluation.

    So `metric_for_best_model="robust_accuracy"` with `load_best_model_at_end=True` keeps the most robust weights. It
    is a quick look at held-out examples; report what `unperturbed.evaluate` measures on others.
    """

    def __init__(
        self,
        data: Any,
        threat: Threat,
        *,
        examples: int = 512,
        method: Method | None = None,
        output: Output = "logits",
        seed: int = 0,
    ) -> None:
        """Take the first `examples` of the data.

        Args:
            data: a `Split`, a pair (x, y) of arrays or tensors, or a map-style dataset of such pairs; examples that do
                not train.
            threat: the threat set.
            examples: how many, at most.
            method: a method with memory, whose `after_epoch` is called.
            output: which part of what the model returns are the logits.
            seed: of the random starts.

        Raises:
            InputError: on data that is of another form, outside the bounds of the threat, or not finite.
        """
        self.held_out = HeldOut.of(data, threat, examples, seed)
        self.method, self.output = method, output

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Probe the model, and add the two accuracies to the metrics and to the log."""
        result = self.held_out.probe(model, self.output)
        accuracies = {"eval_clean_accuracy": result.clean, "eval_robust_accuracy": result.many_steps}
        metrics.update(accuracies)
        state.log_history.append({**accuracies, "epoch": state.epoch, "step": state.global_step})
        end_epoch(self.method, result, state.global_step / max(1, state.max_steps))
