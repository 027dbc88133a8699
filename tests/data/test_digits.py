import torch

from unperturbed.data.named.digits import load as load_digits


def test_digits_are_divided_within_every_class_and_always_in_the_same_way() -> None:
    data = load_digits()
    assert data.test is not None and len(data.train) + len(data.test) == 1797
    counts = torch.bincount(data.train.labels) + torch.bincount(data.test.labels)
    assert torch.equal(torch.bincount(data.test.labels), (0.2 * counts).round().long())
    assert torch.equal(load_digits().test.labels, data.test.labels)  # type: ignore[union-attr]


def test_digits_fill_the_unit_interval() -> None:
    data = load_digits()
    x = data.train.inputs(torch.arange(len(data.train)))
    assert x.shape == (1438, 1, 8, 8) and x.dtype == torch.float32
    assert float(x.min()) == 0 and float(x.max()) == 1
    assert bool((x * 16 == (x * 16).round()).all())
    assert data.classes == tuple("0123456789")
