"""Further defences that break attacks: saturating outputs, rounding in the network, caches, counters, noise, loops."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.planted import Around, Small
from unperturbed.attacks.straight_through import jpeg_like
from unperturbed.types import Inputs, Logits


class Squashed(Around):
    """Logits through tanh, which saturates."""

    def forward(self, x: Inputs) -> Logits:
        return (0.3 * self.net(x)).tanh()  # type: ignore[no-any-return]


class Cold(Around):
    """A softmax at a temperature of 1/1000: nearly always exactly one-hot."""

    def forward(self, x: Inputs) -> Logits:
        return (1000 * self.net(x)).softmax(1)  # type: ignore[no-any-return]


class RoundedLogits(Around):
    def forward(self, x: Inputs) -> Logits:
        return (100 * self.net(x)).round() / 100  # type: ignore[no-any-return]


class ClippedLogits(Around):
    """The lead of the predicted class is cut at 0.5 logits, so that no gradient is left where the network is surer."""

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.net(x)
        return (logits - logits.amax(1, keepdim=True)).clamp(min=-0.5)


class DetachedFirst(Around):
    """A first layer without a gradient, and a gradient that leads elsewhere."""

    def forward(self, x: Inputs) -> Logits:
        net: Any = self.net
        hidden = net.features[0]((x - 0.3).detach()) + 1e-6 * x.roll(3, 2)
        return net.head(net.features[1:](hidden))  # type: ignore[no-any-return]


class Cached(Around):
    """Answers of inputs seen before come from a store, without a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.store: dict[bytes, Tensor] = {}

    def forward(self, x: Inputs) -> Logits:
        keys, fresh = [row.detach().numpy().tobytes() for row in x], self.net(x)
        answers = [self.store.get(key, row) for key, row in zip(keys, fresh, strict=True)]
        self.store |= {key: row.detach() for key, row in zip(keys, fresh, strict=True)}
        return torch.stack(answers)


class Counting(Around):
    """From the fourth call on, every other call has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.calls = 0

    def forward(self, x: Inputs) -> Logits:
        self.calls += 1
        shift = 0.2 * (self.calls % 2)
        logits: Logits = self.net(x + 1e-3 * shift)
        return logits.detach() + 0 * x.sum() if self.calls > 3 and self.calls % 2 else logits


class BatchNormalised(Around):
    """Inputs normalised by mean and standard deviation of the batch, as a batch norm left in train mode does."""

    def forward(self, x: Inputs) -> Logits:
        return self.net(0.3 + 0.38 * functional.batch_norm(x, None, None, training=True))  # type: ignore[no-any-return]


class Jpeg(Around):
    """Cosine coefficients rounded to multiples of 0.2."""

    def forward(self, x: Inputs) -> Logits:
        return self.net(jpeg_like(0.2)(x))  # type: ignore[no-any-return]


class RoundedWithin(Around):
    """Activations of the second layer rounded to multiples of 0.25."""

    def forward(self, x: Inputs) -> Logits:
        net: Any = self.net
        hidden = net.features[:4](x - 0.3)
        return net.head(net.features[4:]((4 * hidden).round() / 4))  # type: ignore[no-any-return]


class Noisy(Around):
    def forward(self, x: Inputs) -> Logits:
        return self.net(x + 0.1 * torch.randn_like(x))  # type: ignore[no-any-return]


class Shifted(Around):
    """A random shift by one pixel."""

    def forward(self, x: Inputs) -> Logits:
        left, up = (int(torch.randint(-1, 2, (1,))) for _ in range(2))
        return self.net(x.roll((left, up), (2, 3)))  # type: ignore[no-any-return]


class Pruned(Around):
    """Stochastic activation pruning (Dhillon et al. 2018): activations are kept with a chance that grows with them."""

    def forward(self, x: Inputs) -> Logits:
        net: Any = self.net
        hidden = net.features[:4](x - 0.3)
        size = hidden.abs().flatten(1)
        chance = 1 - (1 - size / size.sum(1, keepdim=True).clamp(min=1e-9)) ** size.shape[1]
        kept = (torch.rand_like(chance) < chance) / chance.clamp(min=1e-3)
        return net.head(net.features[4:](hidden * kept.view_as(hidden)))  # type: ignore[no-any-return]


class Thermometer(nn.Module):
    """The first layer sees for each pixel which of ten thresholds it exceeds (Buckman et al. 2018)."""

    def __init__(self, net: Small) -> None:
        super().__init__()
        first: Any = net.features[0]
        self.first = nn.Conv2d(10, first.out_channels, 3, padding=1)
        with torch.no_grad():
            self.first.weight.copy_(first.weight.expand(-1, 10, -1, -1) / 10)
            self.first.bias.copy_(first.bias)
        self.rest, self.head = net.features[1:], net.head

    def forward(self, x: Inputs) -> Logits:
        levels = (torch.arange(10) + 0.5).view(1, 10, 1, 1) / 10
        code = (x > levels).float()
        return self.head(self.rest(self.first(code - 0.3)))  # type: ignore[no-any-return]


class Smoother(Around):
    """Steps on the total variation of the image, written by hand, without a gradient."""

    def forward(self, x: Inputs) -> Logits:
        z = x
        for _ in range(6):
            down, right = z.diff(dim=2).sign(), z.diff(dim=3).sign()
            slope = functional.pad(down, (0, 0, 1, 0)) - functional.pad(down, (0, 0, 0, 1))
            slope = slope + functional.pad(right, (1, 0)) - functional.pad(right, (0, 1))
            z = (z - 0.01 * slope).clamp(0, 1)
        return self.net(z)  # type: ignore[no-any-return]


class Signs(nn.Module):
    """Activations of the hidden layer are replaced by their signs around a threshold, next to a part of themselves."""

    def __init__(self, net: Small) -> None:
        super().__init__()
        self.features, self.head = net.features, net.head

    def forward(self, x: Inputs) -> Logits:
        hidden = self.features[:4](x - 0.3)
        steps = sum((torch.sign(hidden - 0.2 * k) + 1) * 0.1 for k in range(12))
        return self.head(self.features[4:](steps))  # type: ignore[no-any-return]


def hidden(net: Small) -> dict[str, tuple[nn.Module, str]]:
    """Return these defences, with the cause that an audit must name."""
    return {
        "cold softmax": (Cold(net), "probabilities in place of logits"),
        "rounded logits": (RoundedLogits(net), "zero gradient"),
        "clipped logits": (ClippedLogits(net), "zero gradient"),
        "first layer detached": (DetachedFirst(net), "shattered"),
        "cache": (Cached(net), "state"),
        "counter": (Counting(net), "state"),
        "batch norm": (BatchNormalised(net), "batch dependence"),
        "jpeg": (Jpeg(net), "quantised input"),
        "rounded within": (RoundedWithin(net), "zero gradient"),
        "signs": (Signs(net), "zero gradient"),
        "total variation": (Smoother(net), "shattered"),
        "thermometer": (Thermometer(net), "quantised input"),
        "noise": (Noisy(net), "random"),
        "pruning": (Pruned(net), "random"),
        "shift": (Shifted(net), "random"),
    }
