"""The loss of any training method by one call, for the user's own training loop."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unperturbed.checks import SEED, checked
from unperturbed.data.split import as_labels, check_dense
from unperturbed.errors import InputError, RunError
from unperturbed.methods.base import Method
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home
from unperturbed.networks.guard import running
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.checkpoint import memory
from unperturbed.types import Batch, Inner, Inputs, Labels, Terms


@dataclass(frozen=True)
class _Step:
    """A step that is not yet in the method's memory."""

    method: Method
    batch: Batch
    inner: Inner
    terms: Terms
    threat: Threat


_OPEN: "WeakKeyDictionary[nn.Module, _Step]" = WeakKeyDictionary()
"""The last step of each network."""
_PLAIN: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()
"""The number of classes of networks that are known to return logits."""
_SLACK = 1e-6
"""The slack of the bounds for rounding, relative if they exceed 1."""


@checked(step=SEED, seed=SEED)
def robust_loss(
    method: Method,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    step: int,
    ids: Tensor | None = None,
    seed: int = 0,
    output: Output = None,
) -> Tensor:
    """Return the scalar loss that `train` would minimise on this batch; call backward on it, then the optimiser.

    The network is attacked in eval mode with frozen weights, and the loss is computed in its current mode: call
    `model.train()` before. Modes, gradients and random generators are restored. A method with memory (such as a dual
    variable) is updated at the call of the next step. For a growing eps, pass a smaller threat; for methods that use a
    batch several times (`free`), call this as often; `method.after_epoch` is left to the caller.

    Args:
        method: such as `TRADES()`.
        model: returns logits, on the device of x and y.
        x: inputs (n, ...), within the bounds of the threat.
        y: labels (n,).
        threat: the threat set.
        step: the number of the optimisation step, which keys the random starts.
        ids: of the examples, which also key the random starts; None: their positions in the batch.
        seed: of the random starts.
        output: the part of the model's output with the logits.

    Raises:
        InputError: for a model without logits or without a gradient to its weights, inputs outside the bounds, and
        labels that do not fit. RunError: for a loss that is not finite, and if the model fails.
    """
    x, y, ids = _checked_batch(model, x, y, threat, ids)
    threat.refuse_sparse("Training")
    classifier = model if model in _PLAIN else as_classifier(model, x[:1], output, Classes.seen_in(y))
    classes = _PLAIN[model] if model in _PLAIN else _classes(classifier, x[:1])
    if classifier is model:
        _PLAIN[model] = classes
    if (largest := int(y.max())) >= classes:
        raise InputError(f"Labels go up to {largest}, but with {classes} classes they must be 0 to {classes - 1}.")
    if (last := _OPEN.pop(model, None)) is not None:
        last.method.after_step(last.batch, last.inner, last.terms, last.threat)
    batch = Batch(threat.boxed(x), y, ids)
    noise = Noise.of(seed, batch.ids).fold(step).fold(1)
    with running("taking the loss of a batch", ids, x):
        with under_attack(classifier):
            inner = method.perturb(classifier, batch, threat, noise)
        terms = method.loss(classifier, batch, inner, threat, noise)
        loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        shown = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
        raise RunError(f"The loss is not finite ({shown}) at step {step}: lower the learning rate, or clip gradients.")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise InputError(
            "The loss has no gradient: the model's weights do not require one (requires_grad_(True)), or its forward "
            "detaches what it returns."
        )
    if memory(method):
        detached = {name: term.detach() for name, term in terms.items()}
        _OPEN[model] = _Step(method, batch, inner, detached, threat)
    return loss


def _checked_batch(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, ids: Tensor | None
) -> tuple[Inputs, Labels, Labels]:
    """Return inputs in the precision of the weights, labels and ids as int64; raises InputError for other values."""
    check_dense(x, "inputs x")
    if not x.is_floating_point() or x.dim() < 2 or x.numel() == 0:
        raise InputError(f"The inputs x are {x.dtype} of shape {tuple(x.shape)}: give floating-point ones, (n, ...).")
    numbers = {"labels y": as_labels(y)} | ({} if ids is None else {"ids": as_labels(ids, "ids")})
    for role, values in numbers.items():
        if len(values) != len(x):
            raise InputError(f"There are {len(x)} inputs x and {len(values)} {role}: give one for each input.")
    if (least := int(numbers["labels y"].min())) < 0:
        raise InputError(f"The labels y go down to {least}, but must be class numbers from 0.")
    x = x.detach().to(home(model)[1])
    low, high = threat.limits(x)
    if not bool(((x >= low - _slack(low)) & (x <= high + _slack(high)) & x.isfinite()).all()):
        raise InputError(
            f"The inputs x range from {float(x.min()):.4g} to {float(x.max()):.4g}, but must be finite and within the "
            f"bounds of {threat}."
        )
    return x, numbers["labels y"].to(y.device), numbers.get("ids", torch.arange(len(x))).to(y.device)


def _slack(limit: Tensor) -> Tensor:
    return _SLACK * limit.abs().clamp(min=1).nan_to_num(posinf=0)


def _classes(classifier: nn.Module, example: Inputs) -> int:
    with under_attack(classifier), torch.no_grad(), torch.random.fork_rng([]):
        return int(classifier(example).shape[1])
