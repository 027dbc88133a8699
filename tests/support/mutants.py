"""Arguments for the fuzzer of the Python API: for each role valid values, nonsense, and what may go either way."""

import decimal
import fractions
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support.toys import Function, linear, mlp
from unperturbed import methods
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

N, FEATURES, CLASSES = 12, 6, 3
Make = Callable[[], Any]


class Text(str):
    """A subclass of str."""


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no text")


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


def fail(error: BaseException) -> Any:
    raise error


def quietly(make: Make) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def inputs() -> Tensor:
    return torch.rand(N, FEATURES, generator=torch.Generator().manual_seed(1))


def images() -> Tensor:
    return torch.randint(0, 256, (N, 1, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def labels() -> Tensor:
    return torch.arange(N) % CLASSES


def changed(value: float) -> Tensor:
    x = inputs()
    x[5, 2] = value
    return x


def relabelled(value: int) -> Tensor:
    y = labels()
    y[4] = value
    return y


def masked(hidden: bool) -> Any:
    return np.ma.masked_array(inputs().numpy(), mask=np.full((N, FEATURES), hidden))


ANYTHING: list[Make] = [
    lambda: b"bytes",
    lambda: object(),
    lambda: Unprintable(),
    lambda: {},
    lambda: {"a": 1},
    lambda: [],
    lambda: [None],
    lambda: set(),
    lambda: iter(()),
    lambda: slice(2),
    lambda: 1j,
    lambda: math.nan,
    lambda: -math.inf,
    lambda: type,
    lambda: torch,
    lambda: np.datetime64("2020-01-01"),
    lambda: torch.zeros(2, 2),
    lambda: np.ma.masked,
    lambda: Text("~"),
    lambda: "\0",
    lambda: NotImplemented,
    lambda: ...,
]
"""No argument is any of these."""
NO_NUMBER: list[Make] = [
    *ANYTHING,
    lambda: math.inf,
    lambda: "1",
    lambda: "",
    lambda: True,
    lambda: np.bool_(True),
    lambda: [1],
    lambda: (1, 2),
    lambda: np.array([1.0, math.nan]),
    lambda: np.float32(math.nan),
    lambda: torch.tensor(math.nan),
    lambda: torch.tensor([1, 2]),
    lambda: 10**400,
    lambda: 1e39,
    lambda: lambda: 1,
    lambda: decimal.Decimal("NaN"),
]
NO_WHOLE: list[Make] = [*NO_NUMBER, lambda: 1.5, lambda: 2.0, lambda: -1, lambda: -(10**12), lambda: fractions.Fraction(3, 2)]
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
    lambda: linear(FEATURES, CLASSES).half(),
    lambda: linear(FEATURES, CLASSES).bfloat16(),
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
            lambda z: z.double(),
            lambda z: z.half(),
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
BAD_INPUTS: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "x.npy",
    lambda: Path("x.npy"),
    lambda: 3,
    lambda: torch.tensor(0.5),
    lambda: inputs()[0],
    lambda: inputs()[:0],
    lambda: inputs()[:, :0],
    lambda: inputs()[:, :5],
    lambda: inputs()[None],
    lambda: changed(math.nan),
    lambda: changed(math.inf),
    lambda: changed(1e30),
    lambda: changed(-0.01),
    lambda: changed(1.01),
    lambda: inputs() * 255,
    lambda: inputs().to(torch.complex64),
    lambda: inputs().to_sparse(),
    lambda: quietly(lambda: inputs().to_sparse_csr()),
    lambda: inputs().to("meta"),
    lambda: quietly(lambda: torch.quantize_per_tensor(inputs(), 0.01, 0, torch.quint8)),
    lambda: masked(True),
    lambda: inputs().numpy().astype(object),
    lambda: inputs().numpy().astype(str),
    lambda: np.zeros(N, dtype=[("a", float), ("b", int)]),
    lambda: np.zeros((N, FEATURES), "datetime64[s]"),
    lambda: [[0.5] * (FEATURES + i % 2) for i in range(N)],
    lambda: [inputs()[0], None],
    lambda: (row for row in inputs()),
    lambda: dict(enumerate(inputs())),
    lambda: quietly(lambda: torch.nested.nested_tensor([torch.rand(2), torch.rand(3)], layout=torch.jagged)),
]
ODD_INPUTS: list[Make] = [
    lambda: inputs().double(),
    lambda: inputs().half(),
    lambda: inputs().round().bool(),
    lambda: inputs().round().long(),
    lambda: inputs().round().to(torch.uint8),
    lambda: inputs().round().to(torch.int8),
    lambda: inputs().requires_grad_(),
    lambda: nn.Parameter(inputs()),
    lambda: inputs().T.contiguous().T,
    lambda: inputs()[:1].expand(N, -1),
    lambda: inputs().repeat(2, 1)[::2],
    lambda: inputs().flip(1),
    lambda: masked(False),
    lambda: inputs().numpy(),
    lambda: inputs().numpy()[::-1],
    lambda: inputs().numpy().astype(">f4"),
    lambda: inputs().numpy().astype(np.float16),
    lambda: inputs().numpy().astype(np.longdouble),
    lambda: np.broadcast_to(inputs().numpy()[0], (N, FEATURES)),
    lambda: np.asmatrix(inputs().numpy()),
    lambda: inputs().tolist(),
    lambda: list(inputs()),
    lambda: tuple(inputs().numpy()),
    lambda: changed(-1e-7),
    lambda: changed(1e-45),
]
BAD_LABELS: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "labels",
    lambda: 1,
    lambda: labels()[:-1],
    lambda: labels()[:0],
    lambda: labels().float(),
    lambda: labels().to(torch.complex64),
    lambda: nn.functional.one_hot(labels(), CLASSES),
    lambda: labels()[None],
    lambda: labels()[:, None, None],
    lambda: relabelled(-1),
    lambda: relabelled(CLASSES),
    lambda: relabelled(10**9),
    lambda: relabelled(-(2**63)),
    lambda: labels().to_sparse(),
    lambda: labels().to("meta"),
    lambda: np.ma.masked_array(labels().numpy(), mask=[True] * N),
    lambda: labels().numpy().astype(object),
    lambda: np.full(N, 2**64 - 1, np.uint64),
    lambda: np.zeros(N, "datetime64[s]"),
    lambda: [0, 1, None] * 4,
    lambda: [[0], [1, 2]] * 6,
    lambda: torch.tensor([math.nan] * N),
]
ODD_LABELS: list[Make] = [
    lambda: labels()[:, None],
    lambda: labels().to(torch.uint8),
    lambda: labels().int(),
    lambda: (labels() > 0),
    lambda: labels().numpy(),
    lambda: labels().numpy().astype(">i4"),
    lambda: labels().numpy().astype(np.uint64),
    lambda: labels().tolist(),
    lambda: tuple(labels()),
    lambda: labels().repeat(2)[::2],
    lambda: torch.zeros(1, dtype=torch.int64).expand(N),
    lambda: np.asmatrix(labels().numpy()).T,
]
NO_PATH: list[Make] = [*ANYTHING, lambda: "", lambda: " ", lambda: "a\0b", lambda: 5, lambda: True, lambda: ["runs"]]


class Unusual:
    """An object that behaves as no well-behaved one does."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, place: Any) -> Any:
        return fail(ValueError("no item"))


def bad_data() -> Iterator[Make]:
    yield from [*ANYTHING, lambda: "digits", lambda: Path("d"), lambda: inputs(), lambda: (inputs(),)]
    yield from (lambda make=make: (make(), labels()) for make in BAD_INPUTS)
    yield from (lambda make=make: (inputs(), make()) for make in BAD_LABELS)
    yield from [
        lambda: (labels(), inputs()),
        lambda: (inputs(), labels(), labels()),
        lambda: Unusual(),
        lambda: torch.utils.data.TensorDataset(inputs()),
        lambda: [(inputs()[0], "a"), (inputs()[1], None)],
        lambda: [(inputs()[0], 0), (inputs()[1][:3], 0)],
    ]


def odd_data() -> Iterator[Make]:
    yield from (lambda make=make: (make(), labels()) for make in ODD_INPUTS)
    yield from (lambda make=make: (inputs(), make()) for make in ODD_LABELS)
    yield from (lambda make=make, other=other: (make(), other()) for make, other in zip(ODD_INPUTS, ODD_LABELS * 2))
    yield lambda: torch.utils.data.TensorDataset(inputs(), labels())
    yield lambda: [inputs(), labels()]


def quick(steps: int = 2) -> Suite:
    return Suite("quick", (GradientAttack("PGD", cross_entropy, PGD(steps=steps)),), "a test")


def threat() -> Threat:
    return Threat("Linf", 0.1)


BAD_THREAT: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "Linf:0.1",
    lambda: 0.1,
    lambda: ("Linf", 0.1),
    lambda: Threat,
    lambda: [threat()],
    lambda: Threat("Linf", 0.1, (0.4, 0.6)),
    lambda: Threat("Linf", 0.1, (torch.zeros(5), torch.ones(5))),
    lambda: Threat("Linf", 0.1, (torch.zeros(2, 1, 6), torch.ones(2, 1, 6))),
]
ODD_THREAT: list[Make] = [
    lambda: Threat("L2", 0.3),
    lambda: Threat("L1", 0.3),
    lambda: Threat("Linf", 0.0),
    lambda: Threat("L1", 0.0),
    lambda: Threat("L2", 1e-30),
    lambda: Threat("Linf", 1e30),
    lambda: Threat("L2", 1e30),
    lambda: Threat("L1", 3e38),
    lambda: Threat("Linf", 0.1, None),
    lambda: Threat("L2", 3e38, None),
    lambda: Threat("Linf", 3e38, None),
    lambda: Threat("L2", 0.3, (torch.zeros(FEATURES), torch.ones(FEATURES))),
    lambda: Threat("L1", 0.3, (np.zeros(FEATURES), np.ones(FEATURES))),
    lambda: Threat("Linf", 0.1, (-1e30, 1e30)),
    lambda: Threat("Linf", 0.1, (0.0, math.inf)),
]
BAD_SUITE: list[Make] = [
    *ANYTHING,
    lambda: None,
    lambda: "",
    lambda: "pdg",
    lambda: "pgd,",
    lambda: ",",
    lambda: "apgd-ce,nothing",
    lambda: 3,
    lambda: Suite,
    lambda: [quick()],
    lambda: PGD(),
    lambda: methods.AT(),
]


def suite_of(function: Callable[..., Any]) -> Make:
    return lambda: function


ODD_SUITE: list[Make] = [
    suite_of(function)
    for function in (
        lambda model, x, y: x,
        lambda model, x, y: x * math.nan,
        lambda model, x, y: x + 1000,
        lambda model, x, y: None,
        lambda model, x, y: x[:1],
        lambda model, x, y: x.double(),
        lambda model, x, y: x.to_sparse(),
        lambda model, x, y: x.to(torch.complex64),
        lambda model, x, y: x.to("meta"),
        lambda model, x, y: x.numpy(),
        lambda model, x, y: x.zero_(),
        lambda model, x, y: y.zero_(),
        lambda model, x, y: model(None),
        lambda model, x, y: fail(ValueError("in the attack")),
        lambda model, x, y: fail(SystemExit(0)),
        lambda model, x: x,
        lambda: None,
        lambda model, x, y: model.requires_grad_(True) and x,
        lambda model, x, y: model.train() and x,
    )
]
