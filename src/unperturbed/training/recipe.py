"""The frozen description of the optimisation of a run (method and threat define the objective)."""

from dataclasses import dataclass
from typing import Literal

from unperturbed.checks import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, SHARE_BELOW_ONE, check_fields
from unperturbed.errors import InputError
from unperturbed.networks.settings import Compile, Layout, Seconds


@dataclass(frozen=True)
class Recipe:
    """The settings of the optimisation.

    Attributes:
        epochs: passes over the training data.
        batch_size: examples per step over all processes; None: 128, or 32 for fewer than 10,000 training examples.
        optimiser: "sgd" (Nesterov momentum 0.9), "adam", "adamw", or "auto": sgd for networks with batch norm, which
            tolerate its large steps, and adam for others.
        lr: peak learning rate; None: 0.1 for sgd, 0.003 for adam and adamw.
        weight_decay: of all parameters with more than one dimension.
        schedule: of the learning rate, per step: "one-cycle" (up over the first 30%, then down to 0), "cosine",
            "step" (times 0.1 at each of `milestones`) or "constant".
        milestones: shares of the run at which the step schedule drops.
        ramp: share of the run over which eps grows linearly from 0 to its value; None: the method's.
        label_smoothing: mass that the training targets spread evenly over the classes.
        augment: batched on the device: "none", "flip", "crop" or "flip-crop".
        clip_grad_norm: largest L2 norm of a step's gradient; None: no clipping.
        averaging: decay of the running average of the weights, stored with them and used for `best` and the final
            model; None: no averaging.
        extra_ratio: share of extra data in every batch, if extra data are given.
        validation: share of the training data held out to choose `best` (never the test set).
        patience: epochs without a better validation score before the run stops; None: never.
        alarm: the reaction to catastrophic or robust overfitting: "warn", "stop",
            "add-steps" (twice the inner steps from catastrophic overfitting on, at most two times), or "off".
        precision: "auto" (bfloat16 autocast and channels-last if hardware and network benefit), "32", "bf16" or
            "64". All reported numbers are computed in float32 at least.
        layout: of images in memory: "auto" (channels-last with bfloat16), "contiguous" or "channels-last".
        compile: whether to compile the network (useful for large ones; needs a C++ compiler on a processor);
            "reduce-overhead": with CUDA graphs, on CUDA devices only.
        tune: "auto" (where the run is expected to take five minutes or more, precision, layout and compilation are
            chosen by the measured time of a step, within 4% of that time), "off" (by the rules above, so that two runs
            agree in every bit), or the seconds for measuring. A resumed run keeps its choice.
        checkpoint_minutes: time between checkpoints within an epoch (there is always one at its end).
        seed: of all random numbers.
        accumulate: parts of a process's batch, one of them in memory at a time, whose gradients are added; batch norm
            uses the statistics of each part.
        checkpoint_activations: whether to compute the activations inside of the network's blocks again in the backward
            instead of storing them: less memory, more time, the same gradient.
    """

    epochs: int = 10
    batch_size: int | None = None
    optimiser: Literal["auto", "sgd", "adam", "adamw"] = "auto"
    lr: float | None = None
    weight_decay: float = 5e-4
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = "one-cycle"
    milestones: tuple[float, ...] = (0.5, 0.75)
    ramp: float | None = None
    label_smoothing: float = 0.0
    augment: Literal["none", "flip", "crop", "flip-crop"] = "none"
    clip_grad_norm: float | None = None
    averaging: float | None = None
    extra_ratio: float = 0.5
    validation: float = 0.1
    patience: int | None = None
    alarm: Literal["warn", "stop", "add-steps", "off"] = "warn"
    precision: Literal["auto", "32", "bf16", "64"] = "auto"
    layout: Layout = "auto"
    compile: Compile = False
    tune: Seconds = "off"
    checkpoint_minutes: float = 10.0
    seed: int = 0
    accumulate: int = 1
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_fields(
            self,
            epochs=AT_LEAST_ONE,
            batch_size=AT_LEAST_ONE,
            accumulate=AT_LEAST_ONE,
            patience=AT_LEAST_ONE,
            lr=POSITIVE,
            clip_grad_norm=POSITIVE,
            weight_decay=NOT_NEGATIVE,
            milestones=SHARE,
            ramp=SHARE,
            label_smoothing=SHARE_BELOW_ONE,
            validation=SHARE_BELOW_ONE,
            averaging=SHARE_BELOW_ONE,
            tune=POSITIVE,
            extra_ratio=SHARE_BELOW_ONE,
            checkpoint_minutes=NOT_NEGATIVE,
            seed=SEED,
        )
        if self.checkpoint_activations and (self.compile or self.tune != "off"):
            raise InputError("checkpoint_activations runs eagerly: leave it out, or compile and tune.")
