"""Checks of a network's outputs: bad outputs raise, doubtful ones are warned of."""

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import padded_logits
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.networks.classifier import Classes
from unperturbed.networks.failures import failed_on_all, isolate
from unperturbed.networks.modes import under_attack
from unperturbed.types import Inputs, Labels, Logits

COUPLED = "An example's logits depend on the others in its batch, and so do its results: take the batch size 1."
PROBABILITIES = (
    "The outputs look like probabilities (they sum to 1), but attacks work on logits: leave the softmax out."
)
FLAT = "The gradient at the inputs is exactly 0"
SATURATED = "The scale of the logits hides the loss from attacks"
LARGE = 60.0
"""A median lead of the label from which the cross-entropy is flat: exp(-60) is below float32's smallest difference."""
MANY = 20
"""The smallest number of examples that should not all be of one class."""
CHANCE = 1e-3
"""Probability below which a class without an example is no chance."""
EVEN = 0.002
"""All confidences within this share of the way from chance to 1: the loss is flat, although the answers are right.

After ten steps of training, networks of the digits are sure by 1% to 3% of the way, and their attacks are as good.
"""


def check_outputs(model: nn.Module, examples: Inputs) -> tuple[int, list[str]]:
    """Return the number of classes of the model, and warnings.

    The warnings are of outputs that look like probabilities, and of logits that depend on other examples in the batch.

    Raises:
        InputError: if the outputs are not logits of shape (n, classes >= 2).
    """
    with under_attack(model):
        parts, failures = isolate(
            lambda rows: padded_logits(model, examples[rows], len(rows)), torch.arange(len(examples))
        )
        if not parts:
            raise failed_on_all(failures)
        logits = torch.cat([part for _, part in parts])
        with torch.enable_grad():
            reached = model(examples[:1].clone().requires_grad_()).requires_grad
        coupled = _is_coupled(model, examples[parts[0][0][:1]], parts[0][1][:1])
    if not reached:
        raise InputError("No gradient reaches the model's inputs (no_grad or detach inside it): attacks need one.")
    if logits.dim() != 2 or logits.shape[1] < 2:
        shape = tuple(logits.shape)
        raise InputError(f"The model returns a tensor of shape {shape}, but logits have the shape (n, classes >= 2).")
    warnings = []
    if coupled:
        warnings.append(COUPLED)
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        warnings.append(PROBABILITIES)
    if columns := spoiled_columns(logits):
        warnings.append(
            f"Logits of the first {len(logits)} examples are not finite {columns}: such examples are undecided. Mask "
            "classes by a large negative number, such as -1e4, in place of -inf."
        )
    return logits.shape[1], warnings


def spoiled_columns(logits: Logits) -> str:
    """Return the columns (classes) with logits that are not finite, with a value and its count; "" for none or all."""
    spoiled = ~logits.isfinite()
    columns = spoiled.any(0).nonzero().flatten().tolist()
    if not columns or len(columns) == logits.shape[1]:
        return ""
    texts = [
        f"{column} ({float(logits[spoiled[:, column], column][0]):g} for {int(spoiled[:, column].sum())})"
        for column in columns[:3]
    ]
    more = ", ..." * (len(columns) > 3)
    return f"in column{'s' * (len(columns) > 1)} {', '.join(texts)}{more}"


def not_finite(model: nn.Module) -> str | None:
    """Return a sentence on weights with NaN or infinite values; None if all are finite."""
    wrong = {name: int((~weight.isfinite()).sum()) for name, weight in model.named_parameters()}
    places = [f"{name} ({count} of its values)" for name, count in wrong.items() if count]
    return f"Weights are NaN or infinite: {', '.join(places[:3])}{', ...' * (len(places) > 3)}" if places else None


def misfit(columns: int, classes: Classes) -> list[str]:
    """Return a warning if the network has more classes than the data."""
    if columns <= classes.count or classes.fit(columns):
        return []
    return [
        f"The network returns {columns} logits, but {classes}: are these its logits, and do the labels suit them? "
        "output= (--output) selects another part of its output."
    ]


def counted_from_one(labels: Labels) -> list[str]:
    """Return a warning if the labels seem to count from 1: none is 0, which would hardly happen by chance."""
    least, most = int(labels.min()), int(labels.max())
    if least != 1 or most < 2 or (1 - 1 / (most + 1)) ** len(labels) >= CHANCE:
        return []
    return [
        f"Labels run from 1 to {most}, and none is 0: if they count from 1, take 1 off, since the classes of a network "
        "count from 0."
    ]


def one_class(labels: Labels) -> list[str]:
    """Return a warning if many examples are all of one class, as the first ones of sorted data are."""
    if len(labels) < MANY or int(labels.min()) < int(labels.max()):
        return []
    return [
        f"All {len(labels)} examples are of class {int(labels[0])}: their accuracies say nothing about the others. A "
        "network that always returns this one has 100%."
    ]


def _is_coupled(model: nn.Module, example: Inputs, among_others: Tensor) -> bool:
    """Tell whether logits differ by more than rounding (also TF32's) without the other examples, random numbers aside.

    Such a network (for example with batch norm without running statistics) has logits for a batch, not for an example.
    """
    parts, _ = isolate(lambda rows: [padded_logits(model, example, 1) for _ in range(2)], torch.zeros(1).long())
    if not parts or not torch.equal(*parts[0][1]):
        return False
    alone = parts[0][1][0]
    return bool((alone - among_others).abs().max() > 0.05 * alone.abs().max())


def saturated(logits: Tensor, y: Tensor) -> bool:
    """Tell whether cross-entropy is flat at these logits (n, classes), too large or too even, although they are right.

    Only of a network that classifies more than half of the examples correctly: an untrained one is even as well.
    """
    correct = logits.argmax(1) == y
    if int(correct.sum()) <= len(y) / 2:
        return False
    lead = -margin(logits, y)[correct].double()
    uniform = 1 / logits.shape[1]
    surest = float(logits.double().softmax(1).amax())
    return float(lead.median()) > LARGE or surest < uniform + EVEN * (1 - uniform)


def saturated_logits(model: nn.Module, examples: Inputs, y: Tensor) -> list[str]:
    """Return a warning if the cross-entropy is flat because the logits are very large or nearly equal."""
    with under_attack(model):
        rows = torch.arange(len(examples))
        parts, _ = isolate(lambda rows: padded_logits(model, examples[rows], len(rows)), rows)
    if not parts:
        return []
    kept, logits = torch.cat([rows for rows, _ in parts]), torch.cat([part for _, part in parts])
    y = y[kept].to(logits.device)
    if not bool(logits.isfinite().all()) or not saturated(logits, y):
        return []
    lead = float(-margin(logits, y).median())
    return [
        f"{SATURATED}: the label leads by {lead:.3g} logits (median), so that the cross-entropy hardly changes and "
        "attacks that climb it stand still. Divide the logits by their spread, or attack the margin; unperturbed audit "
        "does so."
    ]


def check_type(model: nn.Module, examples: Inputs) -> None:
    """Raise InputError if the logits have another type than the weights."""
    with under_attack(model), torch.no_grad():
        dtype = model(examples[:1]).dtype
    if dtype != examples.dtype:
        raise InputError(
            f"The model returns {dtype} logits from {examples.dtype} weights, but results are computed in the "
            "weights' type: leave autocast and conversions out of its forward."
        )


def flat_gradients(model: nn.Module, examples: Inputs) -> list[str]:
    """Return a warning if gradients of logit differences are 0 at the examples, where searches by gradient fail."""

    def slopes(rows: Tensor) -> Tensor:
        with torch.enable_grad():
            x = examples[rows].clone().requires_grad_()
            first, second = model(x).topk(2, dim=1).values.unbind(1)
            (slope,) = torch.autograd.grad((first - second).sum(), x, materialize_grads=True)
            return slope.flatten(1)

    with under_attack(model):
        parts, _ = isolate(slopes, torch.arange(len(examples)))
    flat = sum(int((slope == 0).all(1).sum()) for _, slope in parts)
    if flat <= len(examples) / 10:
        return []
    return [
        f"{FLAT} for {flat} of the first {len(examples)} examples: attacks by gradient fail there, and their survivors "
        "prove nothing. Attack a surrogate with a gradient (docs/defences.md), and without gradients (--suite square)."
    ]
