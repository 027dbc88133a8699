"""Networks to exchange for a valid one: nonsense, and such as behave badly."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from support.fuzzing.data import CLASSES, FEATURES
from support.fuzzing.values import ANYTHING, Make, fail, quietly
from support.toys import Function, linear, mlp


class NoNetwork(nn.Module):
    """A module without a forward."""


class Acting(nn.Module):
    """A classifier that does something to or with its inputs first."""

    def __init__(self, act: Callable[["Acting", Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.act, self.calls = linear(FEATURES, CLASSES), act, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.inner(self.act(self, x))


class Returning(nn.Module):
    """A network whose output a function makes of the logits."""

    def __init__(self, of: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.of = linear(FEATURES, CLASSES), of

    def forward(self, x: Tensor) -> Any:
        return self.of(self.inner(x))


NO_MODULE: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "mlp",
    lambda: Path("runs"),
    lambda: nn.Linear,
    lambda: lambda x: x,
    lambda: linear(FEATURES, CLASSES).state_dict(),
    lambda: [linear(FEATURES, CLASSES)],
]
BAD_MODEL: list[Make] = [
    *NO_MODULE,
    lambda: NoNetwork(),
    lambda: nn.ModuleList([linear(FEATURES, CLASSES)]),
    lambda: linear(5, CLASSES),
    lambda: linear(FEATURES, 2),
    lambda: linear(FEATURES, 1),
    lambda: quietly(lambda: linear(FEATURES, CLASSES).to(torch.complex64)),
    lambda: linear(FEATURES, CLASSES).to("meta"),
    *(
        lambda of=of: Returning(of)
        for of in (
            lambda z: None,
            lambda z: "logits",
            lambda z: 1.0,
            lambda z: {"a": z},
            lambda z: (None, z),
            lambda z: (),
            lambda z: [],
            lambda z: z[0],
            lambda z: z[:, None],
            lambda z: z[:1].expand(2 * len(z), -1),
            lambda z: z.argmax(1),
            lambda z: z.round().long(),
            lambda z: z > 0,
            lambda z: torch.complex(z, z),
            lambda z: z.detach(),
            lambda z: torch.tensor(z.tolist()),
            lambda z: z.detach().numpy(),
            lambda z: z.to_sparse(),
            lambda z: z.new_zeros(len(z), 0),
            lambda z: z.to("meta"),
            lambda z: (z for _ in range(2)),
            lambda z: fail(ValueError("always")),
            lambda z: fail(StopIteration()),
            lambda z: fail(SystemExit(3)),
            lambda z: fail(Warning("as an error")),
            lambda z: fail(RecursionError()),
            lambda z: fail(MemoryError()),
            lambda z: fail(AssertionError()),
        )
    ),
]
"""Nothing that can be measured or trained on six features and three classes."""


def fickle(network: Acting, x: Tensor) -> Tensor:
    return x if network.calls % 7 else fail(ValueError("the seventh call"))


def in_place(network: Acting, x: Tensor) -> Tensor:
    return x.mul_(0.5)


def self_changing(network: Acting, x: Tensor) -> Tensor:
    with torch.no_grad():
        network.inner.bias.add_(0.01)
    return x


def eval_only(network: Acting, x: Tensor) -> Tensor:
    return fail(ValueError("train mode")) if network.training else x


def one_example(network: Acting, x: Tensor) -> Tensor:
    return x.squeeze() if len(x) > 1 else x


def scaled(factor: float) -> nn.Module:
    model = linear(FEATURES, CLASSES)
    with torch.no_grad():
        model.weight.mul_(factor)
    return model


def with_weight(value: float) -> nn.Module:
    model = linear(FEATURES, CLASSES)
    with torch.no_grad():
        model.weight[0, 0] = value
    return model


def hooked() -> nn.Module:
    model = linear(FEATURES, CLASSES)
    model.register_forward_hook(lambda *_: fail(KeyError("hook")))
    return model


ODD_MODEL: list[Make] = [
    lambda: Acting(fickle),
    lambda: Acting(in_place),
    lambda: Acting(self_changing),
    lambda: Acting(eval_only),
    lambda: Acting(one_example),
    lambda: Acting(lambda _, x: x.masked_fill(x[:, :1] > 0.5, math.nan)),
    lambda: Acting(lambda _, x: x * math.nan),
    lambda: Acting(lambda _, x: fail(ValueError("some")) if bool((x[:, 0] > 0.6).any()) else x),
    lambda: Acting(lambda _, x: x + torch.rand(1)),
    lambda: Acting(lambda _, x: x - x.mean(0)),
    lambda: Acting(lambda _, x: x.round()),
    lambda: Acting(lambda _, x: x.sqrt()),
    lambda: Acting(lambda _, x: x.flip(0)),
    lambda: Acting(lambda network, x: x.data),
    lambda: Returning(lambda z: z.double()),
    lambda: Returning(lambda z: z.half()),
    lambda: Returning(lambda z: (z, z)),
    lambda: Returning(lambda z: {"logits": z}),
    lambda: Returning(lambda z: [z]),
    lambda: Returning(lambda z: z.softmax(1)),
    lambda: Returning(lambda z: z.log_softmax(1)),
    lambda: Returning(lambda z: z - math.inf),
    lambda: Returning(lambda z: z * 1e38),
    lambda: Returning(lambda z: z * 0),
    lambda: Returning(lambda z: torch.cat([z, z - 100], 1)),
    lambda: Returning(lambda z: nn.Parameter(z)),
    lambda: Function(lambda x: x[:, :CLASSES]),
    lambda: mlp(FEATURES, CLASSES, norm=True),
    lambda: mlp(FEATURES, CLASSES, dropout=0.5),
    lambda: linear(FEATURES, CLASSES).double(),
    lambda: linear(FEATURES, CLASSES).half(),
    lambda: linear(FEATURES, CLASSES).bfloat16(),
    lambda: linear(FEATURES, CLASSES).requires_grad_(False),
    lambda: nn.Flatten(),
    lambda: nn.Sequential(),
    lambda: nn.Identity(),
    lambda: nn.LazyLinear(CLASSES),
    lambda: scaled(1e30),
    lambda: scaled(0),
    lambda: with_weight(math.nan),
    lambda: with_weight(math.inf),
    hooked,
]
"""Networks that may be refused; where they are measured, the result must be valid."""
