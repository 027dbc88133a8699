"""The causes of a robust accuracy that is too high, with explanations and remedies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A reason why attacks fail on a network that is not robust.

    Attributes:
        name: its name in the verdict.
        meaning: one sentence for a reader who has never heard of gradient masking.
        remedy: the remedy.
    """

    name: str
    meaning: str
    remedy: str


CAUSES: tuple[Cause, ...] = (
    Cause(
        "probabilities in place of logits",
        "The network returns probabilities, which are so close to 0 and 1 that attacks lose the direction to climb in.",
        "Return the logits: leave the softmax or sigmoid out of the network.",
    ),
    Cause(
        "saturation",
        "The logits are so large or so small that the loss hardly changes, so attacks that climb it do not move.",
        "Attack the margin, or divide the logits by their spread before the loss.",
    ),
    Cause(
        "quantised input",
        "The input is rounded before the network sees it, so small changes have no effect and the gradient is 0.",
        "Attack with the gradient passed straight through the rounding (StraightThrough; docs/defences.md).",
    ),
    Cause(
        "test-time optimisation",
        "The network repairs each input before it classifies it, and the usual attacks do not account for the repair.",
        "Attack with the gradient at the repaired input passed straight to the input, and attack the repair too.",
    ),
    Cause(
        "state",
        "The logits depend on earlier calls, so the result of one call does not hold in the next.",
        "Evaluate every input from the same state, and make forward() change nothing.",
    ),
    Cause(
        "random",
        "The network draws random numbers, so a single forward gives an attack little information.",
        "Attack and measure the mean over many draws (--suite rand).",
    ),
    Cause(
        "batch dependence",
        "The logits of an example depend on the other examples in the batch, so a single image has no logits.",
        "Evaluate every example alone (--batch-size 1), or make the network independent of the batch.",
    ),
    Cause(
        "non-finite",
        "The gradient is NaN or infinite, so attacks get no direction.",
        "Make the layer's slope finite (a small number under the root or the logarithm), or pass it straight through.",
    ),
    Cause(
        "zero gradient",
        "The gradient is exactly 0, so attacks that follow it do not move, although the answer can be changed.",
        "Pass the gradient straight through the layer where it vanishes, and attack without gradients.",
    ),
    Cause(
        "shattered",
        "The gradient is not the direction in which the logits change, so attacks that follow it are misled.",
        "Pass the gradient straight through the layer where it is wrong, average it over noise, and use Square as "
        "well.",
    ),
    Cause(
        "catastrophic overfitting",
        "One long step leaves most examples standing and several short ones break them, as after training against "
        "single steps only: the network is not robust at this radius.",
        "Train with several steps, or with GradAlign or N-FGSM, and evaluate with many steps.",
    ),
    Cause(
        "weak suite",
        "The attacks were too weak: longer or other attacks break many more examples.",
        "Evaluate with a stronger suite (--suite standard).",
    ),
)
"""The order of the causes in an audit: a cause that explains another comes first."""
BY_NAME = {cause.name: cause for cause in CAUSES}
