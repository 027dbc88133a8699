"""Data to exchange for valid data: nonsense, and unusual forms that may be taken."""

import math
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support.fuzzing.values import ANYTHING, Make, fail, quietly

N, FEATURES, CLASSES = 12, 6, 3


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
    lambda: quietly(lambda: np.asmatrix(inputs().numpy())),
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
    lambda: labels() > 0,
    lambda: labels().numpy(),
    lambda: labels().numpy().astype(">i4"),
    lambda: labels().numpy().astype(np.uint64),
    lambda: labels().tolist(),
    lambda: tuple(labels()),
    lambda: labels().repeat(2)[::2],
    lambda: torch.zeros(1, dtype=torch.int64).expand(N),
    lambda: quietly(lambda: np.asmatrix(labels().numpy()).T),
]


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
    several = list(zip(ODD_INPUTS, cycle(ODD_LABELS), strict=False))
    yield from (lambda make=make, other=other: (make(), other()) for make, other in several)
    yield lambda: torch.utils.data.TensorDataset(inputs(), labels())
    yield lambda: [inputs(), labels()]
