"""The robust accuracy of planted defences by long attacks that know them, written for each defence."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from support.adaptive import expected_accuracy, levels_box, resizings, robust_accuracy, sampled, shifts, smooth
from support.hidden import BatchNormalised, Jpeg, Noisy, Pruned, RoundedWithin, Signs, Smoother, Thermometer
from support.planted import EPS, Dropped, Purified, Small, WinnersTakeAll
from unperturbed.attacks.straight_through import StraightThrough, jpeg_like
from unperturbed.types import Inputs, Labels, Logits

Truth = Callable[[Inputs, Labels], float]


def rounded(net: Small, levels: int) -> Callable[[Tensor], Logits]:
    """Return the network on rounded inputs, with the gradient passed straight through the rounding."""
    piece = StraightThrough(lambda x: (x * levels).round() / levels)
    return lambda x: net(piece(x))  # type: ignore[no-any-return]


def rounded_within(net: Any) -> Callable[[Tensor], Logits]:
    """Return the network with rounded activations, and the gradient passed straight through the rounding."""
    piece = StraightThrough(lambda hidden: (4 * hidden).round() / 4)
    return lambda x: net.head(net.features[4:](piece(net.features[:4](x - 0.3))))  # type: ignore[no-any-return]


def soft_signs(model: Signs) -> Callable[[Tensor], Logits]:
    """Return the network with soft steps in the place of signs."""

    def forward(x: Tensor) -> Logits:
        hidden = model.features[:4](x - 0.3)
        steps = torch.stack([(((hidden - 0.2 * k) / 0.1).tanh() + 1) * 0.1 for k in range(12)]).sum(0)
        return model.head(model.features[4:](steps))  # type: ignore[no-any-return]

    return forward


def soft_steps(net: Small) -> Callable[[Tensor], Logits]:
    """Return the network behind steps on the total variation with soft signs."""

    def forward(x: Tensor) -> Logits:
        z = x
        for _ in range(6):
            down, right = (z.diff(dim=2) / 0.02).tanh(), (z.diff(dim=3) / 0.02).tanh()
            slope = functional.pad(down, (0, 0, 1, 0)) - functional.pad(down, (0, 0, 0, 1))
            slope = slope + functional.pad(right, (1, 0)) - functional.pad(right, (0, 1))
            z = (z - 0.01 * slope).clamp(0, 1)
        return net(z)  # type: ignore[no-any-return]

    return forward


def unrolled(net: Small) -> Callable[[Tensor], Logits]:
    """Return the network behind four steps of purification with soft signs, the gradient through all of them."""

    def forward(x: Tensor) -> Logits:
        z = x if x.requires_grad else x.clone().requires_grad_()
        for _ in range(4):
            rough = (z - functional.avg_pool2d(z, 3, 1, 1)).square().sum()
            (slope,) = torch.autograd.grad(5 * rough - net(z).logsumexp(1).sum(), z, create_graph=True)
            z = (z - 0.02 * (2 * slope / slope.abs().mean().clamp(min=1e-9)).tanh()).clamp(0, 1)
        return net(z)  # type: ignore[no-any-return]

    return forward


def truths(net: Small) -> dict[str, Truth]:
    """Return the attack on each defence that changes the answers, by the name of the defence."""
    signs, winners, purifier = Signs(net), WinnersTakeAll(net), Purified(net)

    def expected(drawn: Any, judged: Any) -> Truth:
        return lambda x, y: expected_accuracy(drawn, judged, x, y, EPS, steps=40, starts=1)

    def random(model: Any) -> Truth:
        return expected(sampled(model, 32, 1), sampled(model, 200, 2))

    def broken(real: Any, *ways: Any, starts: int = 2) -> Truth:
        return lambda x, y: robust_accuracy(real, ways, x, y, EPS, starts=starts)

    normalised = BatchNormalised(net)
    return {
        "8 levels": lambda x, y: robust_accuracy(
            rounded(net, 7), [rounded(net, 7), net], x, y, EPS, box=levels_box(x, EPS, 7)
        ),
        "random resizing": expected(resizings(net), resizings(net)),
        "dropout": random(Dropped(net)),
        "k winners": broken(winners, smooth(winners, 0.05), smooth(winners, 0.1), winners, net),
        "purification": broken(purifier, net, unrolled(net)),
        "jpeg": broken(Jpeg(net), lambda x: net(StraightThrough(jpeg_like(0.2))(x)), net, starts=5),
        "rounded within": broken(RoundedWithin(net), rounded_within(net), net),
        "signs": broken(signs, soft_signs(signs), net),
        "total variation": broken(Smoother(net), soft_steps(net), net),
        "thermometer": broken(Thermometer(net), rounded(net, 10), net),
        "noise": random(Noisy(net)),
        "pruning": random(Pruned(net)),
        "shift": expected(shifts(net), shifts(net)),
        "batch norm": broken(
            lambda z: torch.cat([normalised(row[None]) for row in z]),
            lambda z: net(0.3 + 0.38 * functional.instance_norm(z)),
        ),
    }
