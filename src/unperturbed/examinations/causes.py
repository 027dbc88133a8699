"""Why a robust accuracy can be too high: the causes that an audit names, explained, each with its remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A reason why attacks fail on a network that is not robust.

    Attributes:
        name: as in the verdict.
        meaning: one sentence for a reader who has never heard of gradient masking.
        remedy: what to do about it.
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
        "The logits are so large or so small that the loss hardly changes, so attacks that climb it stand still.",
        "Attack the margin, or divide the logits by their spread before the loss.",
    ),
    Cause(
        "quantised input",
        "The input is rounded before the network sees it, so small changes have no effect and the gradient is 0.",
        "Attack with the gradient passed straight through the rounding (StraightThrough; docs/defences.md).",
    ),
    Cause(
        "test-time optimisation",
        "The network repairs each input before it classifies it, and the usual attacks do not see through the repair.",
        "Attack with the gradient at the repaired input passed straight to the input, and attack the repair too.",
    ),
    Cause(
        "state",
        "The answer depends on earlier calls, so what an attack saw in one call does not hold in the next.",
        "Evaluate every input from the same state, and make forward() change nothing.",
    ),
    Cause(
        "random",
        "The network draws random numbers, so a single forward tells an attack little.",
        "Attack and measure the mean over many draws (--suite rand).",
    ),
    Cause(
        "batch dependence",
        "The answer for an example depends on the other examples in the batch, so it has no answer for one image.",
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
        "Pass the gradient straight through the layer where it dies, and attack without gradients.",
    ),
    Cause(
        "shattered",
        "The gradient points elsewhere than the way the answer really changes, so attacks that follow it are misled.",
        "Pass the gradient straight through the layer where it lies, average it over noise, and use Square as well.",
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
"""In the order in which an audit names them: what explains another cause comes first."""
BY_NAME = {cause.name: cause for cause in CAUSES}
