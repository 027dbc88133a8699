"""A small robust network on the digits, and defences around it that break attacks and not much else."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturbed.data.sources import load_data
from unperturbed.types import Inputs, Labels, Logits

EPS = 0.15


class Small(nn.Module):
    """Two convolutions and a hidden layer, for 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(384, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.head(self.features(x - 0.3))
        return logits


def fit(eps: float, steps: int, epochs: int, step_size: float = 0.5, random_start: bool = True, seed: int = 0) -> Small:
    """Return the network after adversarial training by `steps` steps of PGD, eps rising over the first third."""
    train = load_data("digits").train
    x, y = train.inputs(torch.arange(len(train))), train.labels
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = Small()
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for epoch in range(epochs):
            radius = eps * min(1.0, 3 * (epoch + 1) / epochs)
            for rows in torch.randperm(len(x)).split(64):
                shift = (2 * torch.rand_like(x[rows]) - 1) * radius * random_start
                for _ in range(steps):
                    z = (x[rows] + shift).clamp(0, 1).requires_grad_()
                    (slope,) = torch.autograd.grad(functional.cross_entropy(net(z), y[rows]), z)
                    shift = (z.detach() + step_size * radius * slope.sign() - x[rows]).clamp(-radius, radius)
                optimiser.zero_grad()
                functional.cross_entropy(net((x[rows] + shift).clamp(0, 1)), y[rows]).backward()
                optimiser.step()
    return net.eval()


@cache
def robust(seed: int = 0) -> Small:
    """Return a network trained by four steps of PGD: about 63% of the test digits survive AutoAttack at `EPS`."""
    return fit(EPS, 4, 12, seed=seed)


def examples(n: int) -> tuple[Inputs, Labels]:
    """Return the first test digits."""
    test = load_data("digits").test
    assert test is not None
    return test.inputs(torch.arange(n)), test.labels[:n]


class Around(nn.Module):
    """A defence around a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Scaled(Around):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__(net)
        self.factor = factor

    def forward(self, x: Inputs) -> Logits:
        return self.factor * self.net(x)  # type: ignore[no-any-return]


class Softmax(Around):
    def forward(self, x: Inputs) -> Logits:
        return (5 * self.net(x)).softmax(1)  # type: ignore[no-any-return]


class Identity(torch.autograd.Function):
    """The identity with a backward of zeros, of noise, or of NaN."""

    @staticmethod
    def forward(context: Any, x: Tensor, kind: str) -> Tensor:
        context.kind = kind
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if context.kind == "noise":
            return torch.randn_like(gradient), None
        return torch.full_like(gradient, 0.0 if context.kind == "zero" else torch.nan), None


class Behind(Around):
    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__(net)
        self.kind = kind

    def forward(self, x: Inputs) -> Logits:
        return self.net(Identity.apply(x, self.kind))  # type: ignore[no-untyped-call, no-any-return]


class Rippled(Around):
    """Adds a ripple that is too small to matter and too steep to follow."""

    def forward(self, x: Inputs) -> Logits:
        return self.net(x + 1e-4 * (3e5 * x).sin())  # type: ignore[no-any-return]


class Detached(Around):
    """A linear skip, and a residual branch without a gradient that makes up the rest."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        with torch.random.fork_rng([]):
            torch.manual_seed(5)
            self.skip = nn.Linear(64, 10)

    def forward(self, x: Inputs) -> Logits:
        skip: Logits = self.skip(x.flatten(1))
        return skip + (self.net(x) - skip).detach()  # type: ignore[no-any-return]


class Coupled(Around):
    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.net(x)
        return logits * (1 + 3 * logits.abs().mean()) ** 2 / (logits.norm() + 1e-3)


class Rounded(Around):
    def forward(self, x: Inputs) -> Logits:
        return self.net((x * 7).round() / 7)  # type: ignore[no-any-return]


class Resized(Around):
    def forward(self, x: Inputs) -> Logits:
        size = int(torch.randint(6, 9, (1,)))
        left, top = (int(torch.randint(0, 9 - size, (1,))) for _ in range(2))
        small = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        return self.net(functional.pad(small, (left, 8 - size - left, top, 8 - size - top)))  # type: ignore[no-any-return]


class Dropped(Around):
    def forward(self, x: Inputs) -> Logits:
        net: Any = self.net
        return net.head(functional.dropout(net.features(x - 0.3), 0.3, True))  # type: ignore[no-any-return]


class Winners(nn.Module):
    """k-winners-take-all (Xiao et al. 2020) in the place of ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, int(0.3 * flat.shape[1])), 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class WinnersTakeAll(nn.Module):
    def __init__(self, net: Small) -> None:
        super().__init__()
        self.features = nn.Sequential(*(Winners() if isinstance(each, nn.ReLU) else each for each in net.features))
        self.head = net.head

    def forward(self, x: Inputs) -> Logits:
        return self.head(self.features(x - 0.3))  # type: ignore[no-any-return]


class Averaged(Around):
    """Subtracts a moving average of the logits over calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.average: Tensor | None = None

    def forward(self, x: Inputs) -> Logits:
        logits: Logits = self.net(x)
        now = logits.detach().mean(0)
        self.average = now if self.average is None else 0.9 * self.average + 0.1 * now
        return logits - self.average


class Purified(Around):
    """Moves the input to where the network is surer and the image smoother, before it answers."""

    def forward(self, x: Inputs) -> Logits:
        z = x.detach()
        for _ in range(4):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                rough = (z - functional.avg_pool2d(z, 3, 1, 1)).square().sum()
                (slope,) = torch.autograd.grad(5 * rough - self.net(z).logsumexp(1).sum(), z)
            z = (z - 0.02 * slope.sign()).clamp(0, 1).detach()
        return self.net(z)  # type: ignore[no-any-return]


def same_function(net: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return defences that keep the predictions, with the cause that an audit must name."""
    return {
        "logits x 1000": (Scaled(net, 1000.0), "saturation"),
        "logits x 1e-4": (Scaled(net, 1e-4), "saturation"),
        "softmax": (Softmax(net), "probabilities in place of logits"),
        "zero gradient": (Behind(net, "zero"), "zero gradient"),
        "noisy gradient": (Behind(net, "noise"), "shattered"),
        "ripple": (Rippled(net), "shattered"),
        "NaN gradient": (Behind(net, "nan"), "non-finite"),
        "detached branch": (Detached(net), "shattered"),
        "coupled scale": (Coupled(net), "batch dependence"),
    }


def other_function(net: Small) -> dict[str, tuple[nn.Module, str]]:
    """Return defences that change the function, with the cause that an audit must name."""
    return {
        "8 levels": (Rounded(net), "quantised input"),
        "random resizing": (Resized(net), "random"),
        "dropout": (Dropped(net), "random"),
        "k winners": (WinnersTakeAll(net), "shattered"),
        "average over calls": (Averaged(net), "state"),
        "purification": (Purified(net), "test-time optimisation"),
    }
