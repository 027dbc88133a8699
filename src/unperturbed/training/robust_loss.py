"""The loss of any training method by one call, for a training loop of one's own."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from unperturbed.checks import SEED, checked
from unperturbed.errors import RunError
from unperturbed.methods.base import Method
from unperturbed.networks.classifier import as_classifier
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.checkpoint import memory
from unperturbed.types import Batch, Inner, Terms


@dataclass(frozen=True)
class _Step:
    """A step that a method's memory has yet to see."""

    method: Method
    batch: Batch
    inner: Inner
    terms: Terms
    threat: Threat


_OPEN: "WeakKeyDictionary[nn.Module, _Step]" = WeakKeyDictionary()
"""The last step of each network."""
_PLAIN: "WeakSet[nn.Module]" = WeakSet()
"""Networks that were seen to return logits as they are."""


@checked(seed=SEED)
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
    output: Any = None,
) -> Tensor:
    """Return the scalar loss that `train` would minimise on this batch; call backward on it, then the optimiser.

    The network is attacked in eval mode with frozen weights, and the loss is taken in the mode that it is in: call
    `model.train()` before. Modes, gradients and random generators are left as they were. A method with memory (a dual
    variable, say) is updated with each step when the next one is asked for. For eps that grows, pass a smaller threat;
    for methods that use a batch several times (`free`), call this as often; `method.after_epoch` is the caller's.

    Args:
        method: such as `TRADES()`.
        model: returns logits, on the device of x and y.
        x: inputs (n, ...), within the bounds of the threat.
        y: labels (n,).
        threat: the threat set.
        step: the number of the optimisation step, which keys the random starts.
        ids: of the examples, which key them, too; None: their places in the batch.
        seed: of the random starts.
        output: which part of what the model returns are the logits.

    Raises:
        InputError: on a model that returns no logits.
        RunError: on a loss that is not finite.
    """
    classifier = model if model in _PLAIN else as_classifier(model, x[:1], output)
    if classifier is model:
        _PLAIN.add(model)
    if (last := _OPEN.pop(model, None)) is not None:
        last.method.after_step(last.batch, last.inner, last.terms, last.threat)
    batch = Batch(threat.boxed(x), y, torch.arange(len(y), device=y.device) if ids is None else ids.to(y.device))
    noise = Noise.of(seed, batch.ids).fold(step).fold(1)
    with under_attack(classifier):
        inner = method.perturb(classifier, batch, threat, noise)
    terms = method.loss(classifier, batch, inner, threat, noise)
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        shown = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
        raise RunError(f"The loss is not finite ({shown}) at step {step}: lower the learning rate, or clip gradients.")
    if memory(method):
        detached = {name: term.detach() for name, term in terms.items()}
        _OPEN[model] = _Step(method, batch, inner, detached, threat)
    return loss
