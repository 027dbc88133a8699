"""A limit on the nominal loss around any method, by a dual variable that is learned with the weights."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from unperturbed.checks import NOT_NEGATIVE, Rule, checked
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.methods.at import AT
from unperturbed.methods.base import EpochEnd, Method, Wrapper, mean_over_processes
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, PerExample, Terms

KINDS = ("nominal_loss", "nominal_accuracy", "method_loss")
"""The quantities that a limit can apply to."""
MET = 1.05
"""A limit counts as met up to this factor: the loss of an epoch is an average over weights that still move."""
EPOCH = 3
"""An epoch moves the dual variable as far as this many batches: with the moves of hundreds of batches, it would swing
between the ends of its range."""
_AT: Method = AT()


class Constrained(nn.Module, Wrapper):
    """min R subject to N <= rho: R the terms of another method, N the mean CE(f(x), y), by primal and dual steps.

    Constrained learning (Robey et al. 2021, DALE, https://arxiv.org/abs/2110.15767, eq. 7 and algorithm 1). The weights
    descend on R + dual * (N - rho), and the dual variable moves by dual_step * min((N - rho) / rho, 1), within
    [0, dual_max]. The paper's rule is without the minimum, and its step is dual_step / rho; but untrained networks are
    so far beyond any limit that the dual variable would need most of a run to come back. With N and R exchanged
    (`method_loss`), the nominal loss is minimised under a limit on R.

    Instead of a loss, the limit may be an accuracy on the held-out clean examples: the dual variable then follows the
    error rate, once an epoch, while the weights descend on R + dual * N, since an accuracy has no gradient (proxy
    constraints; Cotter et al. 2019, https://arxiv.org/abs/1804.06500).

    N uses the labels, also if the recipe smooths them for the method: smoothed targets keep a cross-entropy far
    from 0, and with it most limits out of reach. It is measured in train mode, on the batches of training, as the
    released code does, and takes a forward and a backward to the weights more than the method alone. Give one limit.

    Attributes:
        method: the method that is limited.
        nominal_loss: rho, the largest mean cross-entropy of the clean inputs; 0.1 if no limit is given.
        nominal_accuracy: the least clean accuracy on held-out training examples, instead.
        method_loss: the largest sum of the method's terms, instead; the nominal loss is then minimised.
        dual_step: step of the ascent per batch; an epoch's step is three times as long.
        every: the dual variable moves after each "batch", as released, or each "epoch", as in the paper.
        wait: share of the run, in whole epochs, for which the dual variable keeps its first value. Every loss is above
            its limit at first: a dual variable that grows from the start is far too high when the limit comes into
            reach, and the robust loss is hardly trained until then.
        dual_start: the dual variable at first.
        dual_max: its upper bound. A limit that is hard to meet may need a larger bound, and the run's last message says
            so; with a bound that is too large, the dual variable takes longer to return.
    """

    name: ClassVar[str] = "constrained"
    ramp: ClassVar[float] = 0.25
    dual: Tensor
    total: Tensor
    batches: Tensor
    done: Tensor
    seen: Tensor
    zeros: Tensor
    idle: Tensor
    began: Tensor
    moved: Tensor
    eps: Tensor
    grew: Tensor
    examples: Tensor
    averaged: Tensor

    @checked(
        nominal_loss=NOT_NEGATIVE,
        nominal_accuracy=Rule("is a share: give a number between 0 and 1", lambda value: 0 < value < 1),
        method_loss=NOT_NEGATIVE,
        dual_step=NOT_NEGATIVE,
        wait=Rule("is a share of the run: give 0 or more, and less than 1", lambda value: 0 <= value < 1),
        dual_start=NOT_NEGATIVE,
        dual_max=NOT_NEGATIVE,
    )
    def __init__(
        self,
        method: Method = _AT,
        nominal_loss: float | None = None,
        nominal_accuracy: float | None = None,
        method_loss: float | None = None,
        dual_step: float = 0.3,
        every: Literal["batch", "epoch"] = "batch",
        wait: float = 0.5,
        dual_start: float = 1.0,
        dual_max: float = 5.0,
    ) -> None:
        super().__init__()
        limits = zip(KINDS, (nominal_loss, nominal_accuracy, method_loss), strict=True)
        limits_set = {name: limit for name, limit in limits if limit is not None}
        if len(limits_set) > 1:
            raise InputError("Give only one of nominal_loss, nominal_accuracy and method_loss.")
        if dual_max < dual_start:
            raise InputError(f"dual_max is {dual_max}, but must be at least dual_start, {dual_start}.")
        self.method = method
        self.nominal_loss = nominal_loss if limits_set else 0.1
        self.nominal_accuracy, self.method_loss = nominal_accuracy, method_loss
        self.dual_step, self.every, self.wait = dual_step, every, wait
        self.dual_start, self.dual_max = dual_start, dual_max
        self.adopt()
        if any(isinstance(inner, Constrained) for inner in self.inside()):
            raise InputError("A constrained method is limited a second time: there is one limit at a time.")
        self.register_buffer("dual", torch.tensor(float(dual_start)))
        self.register_buffer("total", torch.tensor(0.0))  # of the limited loss over this epoch's batches
        self.register_buffer("batches", torch.tensor(0.0))
        self.register_buffer("done", torch.tensor(0.0))  # share of the run
        self.register_buffer("seen", torch.tensor(math.inf))  # the last epoch's limited quantity; infinite at first
        self.register_buffer("zeros", torch.tensor(0.0))  # batches of this epoch in which the dual variable was 0
        self.register_buffer("idle", torch.tensor(0.0))  # their share of the last epoch
        self.register_buffer("began", torch.tensor(float(dual_start)))  # the dual variable where this epoch began
        self.register_buffer("moved", torch.tensor(0.0))  # how far it went in the last epoch
        self.register_buffer("eps", torch.tensor(0.0))  # where this epoch began
        self.register_buffer("grew", torch.tensor(0.0))  # how far it went in this epoch, until the next begins
        self.register_buffer("examples", torch.tensor(0.0))  # that an accuracy is of
        self.register_buffer("averaged", torch.tensor(0.0))  # whether a running average is kept

    @property
    def limit(self) -> float:
        """The limit, on a loss or an accuracy."""
        return float(getattr(self, self._kind))

    @property
    def _kind(self) -> str:
        return next(name for name in KINDS if getattr(self, name) is not None)

    def around(self, method: Method) -> "Constrained":
        """Return the same limit, with its dual variable, around another method."""
        copy = Constrained(
            method, self.nominal_loss, self.nominal_accuracy, self.method_loss,
            self.dual_step, self.every, self.wait, self.dual_start, self.dual_max,
        )  # fmt: skip
        for name, buffer in self.named_buffers(recurse=False):
            setattr(copy, name, buffer.clone())
        return copy

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the method's points, with entries in the log for the limited loss, which `loss` fills in."""
        inner = self.method.perturb(model, batch, threat, noise)
        unknown = torch.zeros(len(batch.x), dtype=batch.x.dtype, device=batch.x.device)
        dual = unknown + self.dual.to(unknown)
        quantities = {"dual": dual, "dual_at_zero": (dual == 0).to(dual), self._limited: unknown.clone()}
        if self.nominal_accuracy is None:  # an accuracy is not known before the epoch's end
            quantities["slack"] = unknown
        return Inner(inner.z, inner.reuse, _union(inner.log, quantities))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the method's terms and one more, "constraint", whose sum is the Lagrangian.

        It is dual * (N - rho) or, with N and R exchanged, N - dual * rho next to the method's terms times dual. The
        limited loss, and its slack if the limit is on it, are stored in `inner.log`.

        Raises:
            InputError: if a term of the method has the name "constraint".
        """
        terms = self.method.loss(model, batch, inner, threat, noise)
        losses = cross_entropy(model(batch.x), batch.y)
        nominal, dual = losses.mean(), self.dual.to(losses)
        if self.method_loss is not None:
            limited = torch.stack(list(terms.values())).sum()
            terms = {name: dual * term for name, term in terms.items()}
            constraint = nominal - dual * self.method_loss
        else:
            limited = nominal
            constraint = dual * (nominal - (self.nominal_loss or 0.0))
        inner.log[self._limited].copy_(limited.detach())
        if self.nominal_accuracy is None:
            inner.log["slack"].copy_(self._slack(limited.detach()))
        return _union(terms, {"constraint": constraint})

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Add the batch to the epoch's mean and, if due, move the dual variable; then update the method's memory.

        The method gets its terms without the constraint; with an exchanged limit they are times the dual variable.
        """
        limited = mean_over_processes(inner.log[self._limited].mean()).to(self.total)
        eps = torch.full_like(self.eps, threat.eps)
        self.eps = torch.where(self.batches == 0, eps, self.eps)
        self.grew = eps - self.eps
        self.total, self.batches, self.zeros = self.total + limited, self.batches + 1, self.zeros + (self.dual == 0)
        if self.every == "batch" and self.nominal_accuracy is None:
            self._ascend(self.dual_step, limited)
        inner_terms = {name: term for name, term in terms.items() if name != "constraint"}
        self.method.after_step(batch, inner, inner_terms, threat)

    def after_epoch(self, end: EpochEnd) -> None:
        """Record the epoch's mean and, if due, move the dual variable."""
        mean = self.total / self.batches.clamp(min=1)
        self.seen = mean if self.nominal_accuracy is None else torch.full_like(self.seen, end.clean_accuracy)
        self.idle = self.zeros / self.batches.clamp(min=1)
        if self.every == "epoch" or self.nominal_accuracy is not None:
            self._ascend(EPOCH * self.dual_step, self.seen)
        self.total, self.batches, self.zeros = (torch.zeros_like(x) for x in (self.total, self.batches, self.zeros))
        self.moved, self.began = self.dual - self.began, self.dual.clone()
        self.done, self.averaged = torch.full_like(self.done, end.done), torch.full_like(self.averaged, end.averaged)
        self.examples = torch.full_like(self.examples, end.examples)
        self.method.after_epoch(end)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return the method's quantities, and the nominal loss of the held-out examples."""
        with torch.no_grad():
            nominal = cross_entropy(model(batch.x), batch.y)
        return {**self.method.examine(model, batch, threat, noise), "nominal_loss": nominal}

    def feasible(self) -> bool | None:
        """Tell whether the last epoch has met the limit; one on the method's terms cannot be met while eps grows.

        None if a loss is limited and a running average is kept: its loss on the training batches is unknown.
        """
        return None if self._averaged_loss else self._met()

    def _met(self) -> bool:
        limited = float(self.seen)
        if self.method_loss is not None and self.grew > 0:
            return False
        met = limited <= MET * self.limit if self.nominal_accuracy is None else float(self._slack(self.seen)) >= 0
        return met and not math.isinf(limited) and self.method.feasible() is not False

    def conclude(self) -> list[str]:
        """Return a sentence on the limit and the distance from it in the last epoch, for any choice of weights."""
        return [*self.method.conclude(), self._verdict(float(self.seen), float(self.dual))]

    def _verdict(self, limited: float, dual: float) -> str:
        if math.isinf(limited):
            return "Whether the limit is met is not known: no epoch was finished."
        if self.method_loss is not None and self.grew > 0:
            return (
                "Not feasible as trained: eps still grew in the last epoch, and a limit on the method's own loss is "
                "one at the full eps. Let eps grow over a smaller share of the run (ramp)."
            )
        slack, where = float(self._slack(self.seen)), f"the dual variable ended at {dual:.3g}"
        side = "within" if slack >= 0 else "beyond"
        if self.nominal_accuracy is not None:
            subject = f"The clean accuracy, {limited:.2%} of {int(self.examples)} examples after the last epoch,"
            distance = f"{100 * abs(slack):.2f} points {side} its limit of {self.limit:.2%}"
        else:
            subject = f"The {self._limited.replace('_', ' ')}, {limited:.4g} over the training steps of the last epoch,"
            share = f" ({abs(slack) / self.limit:.1%})" if self.limit else ""
            distance = f"{abs(slack):.3g}{share} {side} its limit of {self.limit:.4g}"
        caveat = " Kept is a running average of the weights, and whether it meets the limit is not known."
        averaged = caveat if self._averaged_loss else ""
        if self._met():
            settled = dual == 0 or slack <= (MET - 1) * self._scale
            lead = "Feasible before averaging" if self._averaged_loss else "Feasible"
            distance += f", a distance that the tolerance of {MET - 1:.0%} allows" if slack < 0 else ""
            ended = f"{lead}: {subject} is {distance}; {where} (dual * slack = {dual * slack:.2g})"
            return f"{ended}{'' if settled else self._unsettled()}.{averaged}"
        if dual >= self.dual_max:
            ended, further = f"{where} and can grow no more", "grow further (dual_max)"
        else:
            ended, further = where, "move faster (dual_step) or sooner (wait)"
        return (
            f"Not feasible as trained: {subject} is {distance}; {ended}. "
            f"Loosen the limit, train longer, or let the dual variable {further}.{averaged}"
        )

    def _unsettled(self) -> str:
        """Return the reason why the dual variable is above 0 although slack remains."""
        if self.idle > 0:
            return f" and was 0 in {float(self.idle):.0%} of its batches, where the limit does not bind"
        if self.moved == 0:
            return ", and did not move in it: the slack stays unused while it waits (wait), or stands still (dual_step)"
        return f", and was still {'falling' if self.moved < 0 else 'rising'}: in a longer run it would settle"

    def extra_repr(self) -> str:
        """Return the limited method and the limit, for printing."""
        inner = "" if isinstance(self.method, nn.Module) else f"{self.method}, "  # modules print their children
        return f"{inner}{self._kind}={self.limit:g}"

    @property
    def _averaged_loss(self) -> bool:
        """Whether the kept weights differ from those of the limited loss."""
        return bool(self.averaged) and self.nominal_accuracy is None

    @property
    def _limited(self) -> str:
        """The name in the log of the loss that the dual variable multiplies."""
        return "nominal_loss" if self.method_loss is None else "method_loss"

    @property
    def _scale(self) -> float:
        """The largest possible slack: the limit on the loss, or on the error rate."""
        return self.limit if self.nominal_accuracy is None else 1 - self.nominal_accuracy

    def _slack(self, limited: Tensor) -> Tensor:
        """Return the distance to the limit, negative beyond it; 0 while unknown."""
        away = self.limit - limited if self.nominal_accuracy is None else limited - self.limit
        return torch.where(limited.isinf(), 0.0, away)

    def _ascend(self, step: float, limited: Tensor) -> None:
        if self.done < self.wait:
            return
        excess = (-self._slack(limited) / max(self._scale, 1e-12)).clamp(max=1.0)
        self.dual = (self.dual + step * excess).clamp(0.0, self.dual_max)


def _union(terms: Mapping[str, Tensor], added: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the union of two mappings without common names; raises InputError otherwise."""
    for name in added:
        if name in terms:
            raise InputError(
                f"The limited method has a term or quantity named {name!r}, which `constrained` uses: rename it there."
            )
    return {**terms, **added}
