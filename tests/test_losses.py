"""The losses against torch, against their formulas in float64, and where numbers are extreme."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unperturbed.losses import boosted_cross_entropy, cross_entropy, dlr, kl, log_wrong, margin, targeted_dlr
from unperturbed.types import Labels, Logits

LOGITS: list[float] = [0.0, 1.0, -2.0, 0.5, 3.0]


def draw(seed: int = 0, n: int = 9, classes: int = 5, scale: float = 2.0) -> tuple[Logits, Labels]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn((n, classes), generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(classes, (n,), generator=generator)


def boosted(logits: Logits, y: Labels) -> Tensor:
    return boosted_cross_entropy(logits, y, y)


ALL = [cross_entropy, margin, dlr, log_wrong, boosted]
every_loss = pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)


@every_loss
def test_one_value_an_example_that_knows_nothing_of_the_others(loss) -> None:  # type: ignore[no-untyped-def]
    logits, y = draw()
    values = loss(logits, y)
    assert values.shape == (9,) and values.dtype == torch.float64
    for k in range(9):
        assert torch.equal(loss(logits[k : k + 1], y[k : k + 1]), values[k : k + 1])
    assert loss(logits[:0], y[:0]).shape == (0,)


@every_loss
@given(seed=st.integers(0, 2**31), classes=st.integers(3, 6))
@settings(max_examples=8)
def test_derivatives_match_finite_differences(loss, seed: int, classes: int) -> None:  # type: ignore[no-untyped-def]
    logits, y = draw(seed, 4, classes)
    top = logits.detach().topk(3).values
    if (top.diff().abs() < 1e-3).any():  # a kink
        return
    assert torch.autograd.gradcheck(lambda f: loss(f, y), [logits], eps=1e-6, atol=1e-5)


@every_loss
def test_a_shift_of_the_logits_changes_nothing(loss) -> None:  # type: ignore[no-untyped-def]
    logits, y = draw()
    torch.testing.assert_close(loss(logits + 40, y), loss(logits, y))


def test_cross_entropy_is_torchs_for_labels_and_for_distributions() -> None:
    logits, y = draw()
    torch.testing.assert_close(cross_entropy(logits, y).mean(), functional.cross_entropy(logits, y))
    smooth = functional.one_hot(y, 5) * 0.9 + 0.02
    expected = functional.cross_entropy(logits, y, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, smooth), expected)


def test_margin_is_positive_exactly_where_the_prediction_is_wrong() -> None:
    logits, y = draw()
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)
    example = torch.tensor([LOGITS, LOGITS, [1.0, 1.0, 0.0, 0.0, 0.0]])
    assert margin(example, torch.tensor([4, 1, 0])).tolist() == [-2.0, 2.0, 0.0]


def test_dlr_by_hand() -> None:
    """-(f_y - max of the others) / (first - third)."""
    example = torch.tensor([LOGITS, LOGITS])
    found = dlr(example, torch.tensor([4, 1]))
    torch.testing.assert_close(found, torch.tensor([-(3.0 - 1.0), -(1.0 - 3.0)]) / (3.0 - 0.5))
    targeted = targeted_dlr(example, torch.tensor([4, 1]), torch.tensor([0, 4]))
    torch.testing.assert_close(targeted, torch.tensor([-(3.0 - 0.0), -(1.0 - 3.0)]) / (3.0 - 0.25))


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 0.5, 7.0, 1e5]), shift=st.floats(-100, 100))
@settings(max_examples=30)
def test_dlr_does_not_feel_shift_or_scale(seed: int, scale: float, shift: float) -> None:
    logits, y = draw(seed)
    target = (y + 1) % 5
    moved = scale * logits + shift
    torch.testing.assert_close(dlr(moved, y), dlr(logits, y), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(targeted_dlr(moved, y, target), targeted_dlr(logits, y, target), rtol=1e-6, atol=1e-6)


def test_dlr_is_finite_where_logits_are_equal() -> None:
    logits, y = torch.zeros(2, 5, requires_grad=True), torch.tensor([0, 3])
    for values in (dlr(logits, y), targeted_dlr(logits, y, torch.tensor([1, 2]))):
        assert values.isfinite().all()
        assert not torch.autograd.grad(values.sum(), logits)[0].isnan().any()


def test_dlr_needs_three_classes_and_targeted_dlr_four() -> None:
    y = torch.tensor([0])
    with pytest.raises(RuntimeError, match="out of range"):
        dlr(torch.zeros(1, 2), y)
    with pytest.raises(RuntimeError, match="out of range"):
        targeted_dlr(torch.zeros(1, 3), y, torch.tensor([1]))
    assert dlr(torch.zeros(1, 3), y).shape == targeted_dlr(torch.zeros(1, 4), y, torch.tensor([1])).shape == (1,)


def test_kl_is_torchs_with_the_gradient_through_both() -> None:
    logits, _ = draw(0)
    clean, _ = draw(1)
    expected = torch.nn.KLDivLoss(reduction="none")(logits.log_softmax(1), clean.softmax(1)).sum(1)
    torch.testing.assert_close(kl(logits, clean), expected)
    assert (kl(logits, clean) > 0).all() and kl(clean, clean).abs().max() < 1e-12
    assert torch.autograd.gradcheck(kl, [logits, clean], eps=1e-6, atol=1e-6)
    assert not torch.allclose(kl(logits, clean), kl(clean, logits)), "it has a direction"


def test_kl_is_finite_at_saturation() -> None:
    logits = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    clean = torch.tensor([[0.0, 300.0, 0.0]], requires_grad=True)
    value = kl(logits, clean)
    assert float(value.detach()) == pytest.approx(300)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value.sum(), [logits, clean]))


def test_log_wrong_is_the_log_of_what_is_left() -> None:
    logits, y = draw()
    of_label = logits.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(log_wrong(logits, y), torch.log1p(-of_label))


@pytest.mark.parametrize("gap", [50.0, 200.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_wrong_is_finite_however_large_the_gap_s12(gap: float, dtype: torch.dtype) -> None:
    """log(1 - p_y) is -gap + log 2 with two others; there 1 - p_y is 0 in floating point, and its log -inf."""
    logits = torch.tensor([[gap, 0.0, 0.0], [0.0, gap, 0.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([0, 0])
    values = log_wrong(logits, y)
    torch.testing.assert_close(values.detach(), torch.tensor([0.6931471805599453 - gap, 0.0], dtype=dtype))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 0.5, 0.5], [0.0, 0.0, 0.0]], dtype=dtype))
    naive = torch.log(1 - logits.softmax(1)[0, 0])
    assert naive.isinf() or dtype == torch.float64, "the form to avoid"


def test_log_wrong_with_two_classes() -> None:
    logits, y = draw(classes=2)
    torch.testing.assert_close(log_wrong(logits, y), logits.log_softmax(1).gather(1, 1 - y[:, None])[:, 0])


def test_boosted_cross_entropy_by_its_formula() -> None:
    """-log p_y - log(1 - max_{j != y} p_j)."""
    logits, y = draw(classes=4)
    p = logits.softmax(1)
    others = p.masked_fill(functional.one_hot(y, 4).bool(), 0)
    expected = -p.gather(1, y[:, None])[:, 0].log() - torch.log1p(-others.amax(1))
    torch.testing.assert_close(boosted(logits, y), expected)
    smooth = functional.one_hot(y, 4) * 0.9 + 0.025
    expected = -(smooth * p.log()).sum(1) - torch.log1p(-others.amax(1))
    torch.testing.assert_close(boosted_cross_entropy(logits, y, smooth), expected)


@pytest.mark.parametrize("gap", [50.0, 200.0, 1e4])
def test_boosted_cross_entropy_is_finite_at_saturation(gap: float) -> None:
    """Where the network is sure and right it is 0; where it is sure and wrong it is twice the gap."""
    logits = torch.tensor([[gap, 0.0, 0.0, 0.0], [0.0, gap, 0.0, 0.0]], requires_grad=True)
    values = boosted(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(values.detach(), torch.tensor([0.0, 2 * gap - 1.0986123]), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    torch.testing.assert_close(gradient[1], torch.tensor([-1.0 - 1 / 3, 2.0, -1 / 3, -1 / 3]))
    assert gradient.isfinite().all()
