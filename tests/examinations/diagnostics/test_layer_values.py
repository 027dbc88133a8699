"""The layers of networks of all kinds, and what is told of them."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from support.examples import untouched
from unperturbed.anatomy.chain import chain
from unperturbed.anatomy.maps import linear_maps
from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.examinations.diagnostics.layers import OPERATORS, QUANTITIES, layers
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.threat import Threat
from unperturbed.types import Batch
from unperturbed.weights.files import as_classifier


def examined(model: nn.Module, x: Tensor) -> Finding:
    model = as_classifier(model.eval(), x)
    batch = Batch(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))
    with untouched(model, x), torch.random.fork_rng([]):
        before = torch.get_rng_state()
        found = layers(Subject("a network", model, batch, None, Threat("Linf", 0.1), 3))
        assert torch.equal(torch.get_rng_state(), before)
    assert {line.name for line in found.lines} == {f"{q} ({o})" for q in QUANTITIES for o in OPERATORS}
    for number in found.numbers:
        assert math.isfinite(number.value)
    return found


def line(found: Finding, name: str) -> dict[str, float | None]:
    one = next(one for one in found.lines if one.name == name)
    return dict(zip(map(str, one.x), one.y, strict=True))


def number(found: Finding, name: str) -> float:
    return next(one.value for one in found.numbers if one.name == name)


class Transformer(nn.Module):
    """Patches, a class token, one block of the vision transformers' kind, and a tuple out."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.before, self.after = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.by_hand = by_hand
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.patches(x).flatten(2).mT
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1)
        if self.by_hand:
            normed = self.before(h)
            h = h + self.attention(query=normed, key=normed, value=normed)[0]
            h = h + self.mlp(self.after(h))
        else:
            h = self.block(h)
        return self.head(h[:, 0]), h


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_transformer(by_hand: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(by_hand)
    found = examined(model, torch.rand(4, 3, 12, 12))
    name, inner = (
        ("module.attention", model.attention) if by_hand else ("module.block.self_attn", model.block.self_attn)
    )
    parts = [f"{name}.{part}" for part in ("q", "k", "v", "out_proj")]
    mlp = ["module.mlp.0", "module.mlp.2"] if by_hand else ["module.block.linear1", "module.block.linear2"]
    largest = line(found, "largest singular value (real)")
    assert list(largest) == ["module.patches", *parts, *mlp, "module.head"]
    for part, weight in zip(parts, (*inner.in_proj_weight.chunk(3), inner.out_proj.weight), strict=True):
        assert largest[part] == pytest.approx(float(torch.linalg.matrix_norm(weight.detach(), 2)), rel=1e-5)
    told = " ".join(found.notes)
    norm = "module.before" if by_hand else "module.block.norm1"
    assert f"{norm} (LayerNorm) normalises each example by itself" in told
    assert "module (Transformer) has 8 weights" in told
    unused = "module.block.linear1 (Linear)" if by_hand else "module.mlp.0 (Linear)"
    assert f"{unused} is never called" in told


def test_attention_with_keys_and_values_of_other_sizes() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 1, kdim=3, vdim=5, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x[..., :4], x[..., 4:7], x[..., 7:])[0].mean(1))

    found = linear_maps(Cross(), torch.rand(2, 6, 12))
    sizes = {linear.name: linear.size for linear in found.maps}
    expected = {"q": (4, 4), "k": (4, 3), "v": (4, 5), "out_proj": (4, 4)}
    assert sizes == {f"attention.{part}": size for part, size in expected.items()} | {"head": (2, 4)}
    assert not found.notes


def test_grouped_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU()),
        *(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Flatten(), nn.Linear(256, 3)),
    )
    model[1].running_var.fill_(4)
    found = examined(model, torch.rand(4, 3, 8, 8))
    largest = line(found, "largest singular value (reshaped)")
    assert list(largest) == ["0", "3", "5", "7", "9"]
    depthwise = model[3].weight.detach().flatten(1).norm(dim=1)
    assert largest["3"] == pytest.approx(float(depthwise.max()), rel=1e-6)
    of_groups = torch.linalg.svdvals(model[0].weight.detach().view(3, 2, 9)) / 2
    assert largest["0"] == pytest.approx(float(of_groups.max()), rel=1e-4), "with the batch norm's half"
    told = " ".join(found.notes)
    assert "1 batch norms are folded" in told and "7 are transposed convolutions" in told


def test_a_perceptron_of_known_singular_values() -> None:
    model = MLP((4,), 4, hidden=(4,))
    first, second = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])), torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0]))
    with torch.no_grad():
        model.layers[1].weight.copy_(first)
        model.layers[3].weight.copy_(second)
    found = examined(model, torch.rand(4, 4))
    for operator in OPERATORS:
        expected = {
            "smallest singular value": (0.5, 1),
            "largest singular value": (4, 3),
            "mean singular value": (7.5 / 4, 2),
            "standard deviation of singular values": (math.sqrt(21.25 / 4 - (7.5 / 4) ** 2), 1),
            "standard deviation over largest singular value": (math.sqrt(21.25 / 4 - (7.5 / 4) ** 2) / 4, 1 / 3),
            "condition number": (8, 3),
            "stable rank": (21.25 / 16, 20 / 9),
        }
        for name, values in expected.items():
            full = f"{name} ({operator})"
            assert line(found, full) == {
                key: pytest.approx(v) for key, v in zip(("layers.1", "layers.3"), values, strict=True)
            }
            assert number(found, f"mean over layers of {full}") == pytest.approx(sum(values) / 2)
        assert number(found, f"log10 of the product of largest singular values ({operator})") == pytest.approx(
            math.log10(12)
        )
        assert number(found, f"log10 of the product of smallest singular values ({operator})") == pytest.approx(
            math.log10(0.5)
        )


def test_a_rank_that_is_not_full_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.ones_(model[0].weight)
    found = examined(model, torch.rand(4, 4))
    assert line(found, "condition number (real)")["0"] is None
    names = {one.name for one in found.numbers}
    assert "mean over layers of condition number (real)" not in names
    assert "log10 of the product of smallest singular values (real)" not in names
    assert any("singular value (real) of 0 is 0" in note for note in found.notes)


def test_what_is_unsettled_has_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.anatomy.bounds.SIDE", 4)
    monkeypatch.setattr("unperturbed.anatomy.spectra.STEPS", 5)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(192, 3))
    found = examined(model, torch.rand(4, 3, 8, 8))
    for name, ends in (("smallest singular value (real)", 0), ("condition number (real)", 1)):
        one = next(one for one in found.lines if one.name == name)
        assert one.low is not None and one.high is not None and one.about
        assert (one.low[0], one.high[0]) == ((0.0, one.y[0]), (one.y[0], None))[ends]
        assert (one.low[1], one.high[1]) == (None, None)
    told = " ".join(found.notes)
    assert "smallest singular values (real) of 0 are upper bounds" in told and "are estimates from random" in told


def test_batch_norms_that_follow_no_layer_are_layers() -> None:
    torch.manual_seed(0)
    model = PreActResNet(width=2, depth=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -2, 2)
    found = examined(model, torch.rand(4, 3, 8, 8))
    largest = line(found, "largest singular value (real)")
    scale = model.bn.weight.detach().abs() / math.sqrt(1 + model.bn.eps)
    assert largest["bn"] == pytest.approx(float(scale.max()), rel=1e-6)
    assert line(found, "smallest singular value (reshaped)")["bn"] == pytest.approx(float(scale.min()), rel=1e-6)
    assert "layer1.0.bn2" not in largest and "layer1.0.bn1" in largest
    assert any("layer1.0.bn1 is not folded into conv1" in note for note in found.notes)


def test_a_module_that_is_used_twice_counts_once_and_weights_are_those_of_eval_mode() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spectral_norm(nn.Conv2d(2, 2, 3, padding=1))
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(self.conv(x)[..., ::2]).mean((2, 3)))

    model = Twice()
    found = examined(model, torch.rand(4, 2, 8, 8))
    largest = line(found, "largest singular value (reshaped)")
    expected = torch.linalg.matrix_norm(model.eval().conv.weight.detach().flatten(1), 2)
    assert largest == {"conv": pytest.approx(float(expected), rel=1e-5), "head": largest["head"]}
    assert any("inputs of several shapes" in note for note in found.notes)


def test_layers_with_a_forward_of_their_own_are_left_out_and_told() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(Standardised(2, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    found = examined(model, torch.rand(4, 2, 8, 8))
    assert list(line(found, "largest singular value (real)")) == ["2"]
    assert "0 is a kind of Conv2d with its own forward or hooks: it is left out" in found.notes


def test_a_network_without_layers_is_told() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x.mean(1, keepdim=True)

    batch = Batch(torch.rand(2, 4), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    found = layers(Subject("a network", Mean(), batch, None, Threat("Linf", 0.1), 3))
    assert not found.lines and not found.numbers
    assert found.notes == ("network (Mean) has 3 weights that are no linear map known here: they are left out",)


def test_weights_that_are_not_finite_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    batch = Batch(torch.rand(2, 4), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    found = layers(Subject("a network", model, batch, None, Threat("Linf", 0.1), 3))
    assert list(line(found, "mean singular value (real)")) == ["2"]
    assert "0 has weights that are not finite: it is left out" in found.notes
    assert chain(model, batch.x) == "it has weights that are not finite"
