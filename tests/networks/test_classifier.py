"""Networks of other forms: what works, what is said of it, and what is refused with the remedy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from support.shares import first
from unperturbed import AT, Recipe, Threat, evaluate, train
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.logits import LogitsOnly, output_logits, unwrapped

THREAT = Threat("Linf", 0.1)
X = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > X[:, 1]).long() + (X[:, 2] > 0.5).long()
RECIPE = Recipe(epochs=2, batch_size=10)


class Net(nn.Module):
    """Hidden features and logits, put together by `form`; `first` is done with the inputs."""

    def __init__(self, form: Callable[["Net", Tensor, Tensor], Any], first: Any = None, classes: int = 3) -> None:
        super().__init__()
        self.body, self.head, self.form, self.first = nn.Linear(6, 8), nn.Linear(8, classes), form, first

    def forward(self, x: Tensor) -> Any:
        x = x if self.first is None else self.first(x)
        features = self.body(x).relu()
        return self.form(self, features, self.head(features))


class Two(NamedTuple):
    logits: Tensor
    aux: Tensor


def net(form: Any = lambda self, f, z: z, first: Any = None, classes: int = 3) -> Net:
    torch.manual_seed(0)
    return Net(form, first, classes)


def trained(model: nn.Module, **more: Any) -> Any:
    return train(model, (X, Y), THREAT, AT(PGD(steps=2)), RECIPE, device="cpu", **more)


FORMS: list[Callable[[Net, Tensor, Tensor], Any]] = [
    lambda self, f, z: (z, f),
    lambda self, f, z: [z],
    lambda self, f, z: {"logits": z, "features": f},
    lambda self, f, z: Two(z, f),
    lambda self, f, z: (z, 2 * z) if self.training else z,
    lambda self, f, z: Two(z, 2 * z) if self.training else z,
    lambda self, f, z: {"logits": z} if self.training else z,
    lambda self, f, z: z if self.training else (z,),
]


@pytest.mark.slow
@pytest.mark.parametrize("form", first(3, FORMS))
def test_every_form_of_output_trains_to_the_same_weights(form: Any) -> None:
    plain, other = net(), net(form)
    trained(plain), trained(other)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert evaluate(plain, (X, Y), THREAT, "pgd").examples == evaluate(other, (X, Y), THREAT, "pgd").examples


def test_auxiliary_outputs_in_train_mode_are_reported() -> None:
    (text,) = trained(net(FORMS[4])).warnings
    assert "in train mode (0 (2, 3), 1 (2, 3))" in text and "0 is taken for the logits" in text


FEATURES_FIRST: Any = lambda self, f, z: (f, z)  # noqa: E731


def test_features_first_are_never_taken_for_logits() -> None:
    for run in (lambda: trained(net(FEATURES_FIRST)), lambda: evaluate(net(FEATURES_FIRST), (X, Y), THREAT, "pgd")):
        with pytest.raises(InputError, match=r"8 columns.*go up to 2.*part 1 has 3, say output=1 \(--output 1\)"):
            run()


@pytest.mark.slow
@pytest.mark.parametrize("output", [1, -1, lambda given: given[1]])
def test_output_picks_the_logits(output: Any) -> None:
    plain, other = net(), net(FEATURES_FIRST)
    trained(plain), trained(other, output=output)
    assert torch.equal(plain.head.weight, other.head.weight)
    seen = evaluate(other, (X, Y), THREAT, "pgd", output=output)
    assert seen.examples == evaluate(plain, (X, Y), THREAT, "pgd").examples


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        (FEATURES_FIRST, 2, r"output is 2, but the model returned a tuple \(its tensors: 0 of shape \(1, 8\), 1 of"),
        (FEATURES_FIRST, "z", "output is 'z', but the model returned a tuple"),
        (lambda self, f, z: {"f": f, "z": z}, "y", "output is 'y'.*'f' of shape"),
        (lambda self, f, z: z, 0, "returned one tensor"),
        (lambda self, f, z: None, None, "returned a NoneType without logits"),
        (lambda self, f, z: {"f": f, "z": z}, None, r"dict without logits \(its tensors: 'f'.*output= \(--output\)"),
        (lambda self, f, z: z[0], None, r"shape \(3,\)"),
        (lambda self, f, z: z.long(), None, "torch.int64"),
    ],
)
def test_outputs_that_are_no_logits_are_refused_with_their_parts(form: Any, output: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(net(form), (X, Y), THREAT, "pgd", output=output)


@pytest.mark.slow
def test_more_logits_than_classes_are_reported() -> None:
    assert any("returns 8 logits, but labels go up to 2" in text for text in trained(net(classes=8)).warnings)
    assert any("returns 8 logits" in text for text in evaluate(net(classes=8), (X, Y), THREAT, "pgd").warnings)
    few = evaluate(
        net(classes=8), (X[:3], Y[:3]), THREAT, "pgd"
    )  # three labels say little of how many classes there are
    assert not any("returns 8 logits" in text for text in few.warnings)


@pytest.mark.parametrize(
    ("classes", "columns", "fit"),
    [(Classes(10), 10, True), (Classes(10), 11, False), (Classes(3, 5), 10, True), (Classes(3, 50), 10, False)],
)
def test_labels_tell_how_many_classes_there_are_where_they_are_many(classes: Classes, columns: int, fit: bool) -> None:
    assert classes.fit(columns) == fit


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [lambda x: x.sub_(0.3), lambda x: x.clamp_(0.2, 0.8), lambda x: nn.functional.relu(x, inplace=True)],
)
def test_a_network_that_changes_its_inputs_works_on_a_copy(first: Any) -> None:
    before, model = X.clone(), net(first=first)
    result, seen = trained(model), evaluate(model, (X, Y), THREAT, "pgd")
    assert any("changes its inputs in place" in text for text in (*result.warnings, *seen.warnings))
    assert seen.counts["unknown"] == 0 and torch.equal(X, before)


@pytest.mark.slow
@pytest.mark.parametrize("both", [True, False])
def test_reentrant_checkpoints_give_the_gradients_of_others(both: bool) -> None:
    """Alone in train mode they would give no error, and the first layers no gradient."""

    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Any:
            if not both and not self.training:
                return super().forward(x)
            return self.head(checkpoint(lambda x: self.body(x).relu(), x, use_reentrant=True))

    torch.manual_seed(0)
    plain, other = net(), Checkpointed(lambda self, f, z: z)
    other.load_state_dict(plain.state_dict())
    result = trained(other)
    trained(plain)
    assert any("use_reentrant=False" in text for text in result.warnings)
    assert torch.allclose(plain.body.weight, other.body.weight, atol=1e-6)
    assert evaluate(plain, (X, Y), THREAT, "pgd").counts == evaluate(other, (X, Y), THREAT, "pgd").counts


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", first(1, [lambda self, f, z: z, lambda self, f, z: z[:, 0], lambda self, f, z: z.squeeze()])
)
def test_a_binary_network_with_one_logit_works(shape: Any) -> None:
    y = (X[:, 0] > 0.5).long()
    model = net(shape, classes=1)
    result = train(model, (X, y), THREAT, AT(PGD(steps=2)), Recipe(epochs=20, batch_size=10, lr=0.05), device="cpu")
    assert any("torch.cat([0 * z, z], 1)" in text for text in result.warnings)
    seen = evaluate(model, (X, y), THREAT, "pgd")
    right = (model(X).reshape(-1) > 0).long() == y
    assert seen.clean_accuracy.value == pytest.approx(float(right.float().mean())) and right.float().mean() > 0.9


def test_one_logit_of_more_classes_and_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match=r"labels go up to 2.*torch.cat\(\[0 \* z, z\], 1\)"):
        evaluate(net(classes=1), (X, Y), THREAT, "pgd")
    with pytest.raises(InputError, match="ends in a sigmoid"):
        evaluate(net(lambda self, f, z: z.sigmoid(), classes=1), (X, Y.clamp(max=1)), THREAT, "pgd")


@pytest.mark.parametrize(
    ("first", "x", "message"),
    [
        (lambda x: torch.bitwise_and(x, 3).float(), X, "takes integers only"),
        (lambda x: x.reshape(len(x), 2, 3, 1).permute(0, 3, 1, 2)[:, 0].flatten(1) if x.dim() == 2 else 1 / 0,
         X.view(-1, 1, 2, 3), "takes flat inputs"),
        (lambda x: x if len(x) > 1 else 1 / 0, X, "takes 2 inputs but not 1"),
    ],
)  # fmt: skip
def test_the_remedy_fits_what_the_network_does_take(first: Any, x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(net(first=first), (x, Y), THREAT, "pgd")


@pytest.mark.parametrize(
    ("channels", "shape", "message"),
    [
        (3, (4, 4, 3), r"channels last, and it takes them first: put x.permute\(0, 3, 1, 2\)"),
        (1, (4, 4, 1), r"channels last, and it takes them first: put x.permute\(0, 3, 1, 2\)"),
        (3, (1, 4, 4), r"put x.expand\(-1, 3, -1, -1\)"),
        (3, (4, 5, 5), r"put x\[:, :3\] first"),
        (1, (3, 4, 4), r"put x.mean\(1, keepdim=True\)"),
        (1, (4, 4), r"x\[:, None\] first"),
        (3, (4, 4), r"put x\[:, None\].expand\(-1, 3, -1, -1\)"),
    ],
)
def test_the_remedy_names_the_channels_that_the_network_takes(
    channels: int, shape: tuple[int, ...], message: str
) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(InputError, match=message):
        evaluate(model, (torch.rand(len(Y), *shape), Y), THREAT, "pgd")


@pytest.mark.slow
def test_a_network_that_takes_gradients_itself_works() -> None:
    def sharpened(x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return slope / 2

    plain, other = net(), net(first=sharpened)
    assert evaluate(other, (X, Y), THREAT, "pgd").counts == evaluate(plain, (X, Y), THREAT, "pgd").counts


def test_the_network_inside_is_the_users() -> None:
    model = net(FORMS[0], first=lambda x: x.sub_(0.1))
    assert unwrapped(as_classifier(model, X)) is model and model.training


def test_named_parts_are_picked_by_name_and_place() -> None:
    z, f = torch.ones(1, 3), torch.zeros(1, 8)
    assert output_logits({"f": f, "z": z}, "z") is z and output_logits({"f": f, "z": z}, 1) is z
    assert output_logits(Two(f, z), "aux") is z and output_logits((f, z), 1) is z


def test_an_output_that_is_selected_by_a_first_layer_must_exist() -> None:
    with pytest.raises(InputError, match="output is 7, but the model returned one tensor"):
        as_classifier(LogitsOnly(nn.Linear(6, 3), 7), X)
    both = as_classifier(LogitsOnly(net(lambda self, f, z: (f, z)), 1), X)
    assert both(X).shape == (60, 3)


def test_batch_norm_without_running_statistics_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(InputError, match="takes 2 inputs but not 1: its batch norm takes the statistics of the batch"):
        as_classifier(model, X)
