"""The rule for bfloat16 and channels-last."""

import pytest
import torch
from torch import nn

from unperturbed import precision
from unperturbed.precision import Precision, Requested, as_reported, choose

CPU = torch.device("cpu")
CONVOLUTIONAL = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Flatten())
DENSE = nn.Sequential(nn.Linear(3, 2))
FAST = Precision("bf16-mixed", torch.channels_last, torch.float32)
PLAIN = Precision("32-true", torch.contiguous_format, torch.float32)


@pytest.mark.parametrize(
    ("requested", "model", "native", "expected"),
    [
        ("auto", CONVOLUTIONAL, True, FAST),
        ("auto", CONVOLUTIONAL, False, PLAIN),
        ("auto", DENSE, True, PLAIN),
        ("bf16", CONVOLUTIONAL, False, FAST),
        ("bf16", DENSE, False, Precision("bf16-mixed", torch.contiguous_format, torch.float32)),
        ("32", CONVOLUTIONAL, True, PLAIN),
        ("64", CONVOLUTIONAL, True, Precision("64-true", torch.contiguous_format, torch.float64)),
        ("64", DENSE, False, Precision("64-true", torch.contiguous_format, torch.float64)),
    ],
)
def test_the_choice(
    requested: Requested, model: nn.Module, native: bool, expected: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 only where it is asked for, or where convolutions meet hardware that multiplies it."""
    monkeypatch.setattr(precision, "_native_bfloat16", lambda device: native)
    assert choose(requested, model, CPU) == expected


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_a_processor_is_asked_what_it_multiplies(avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose("auto", CONVOLUTIONAL, CPU) == (FAST if avx512 or amx else PLAIN)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_without_emulation(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert choose("auto", CONVOLUTIONAL, torch.device("cuda")) == (FAST if native else PLAIN)


def test_an_unknown_device_gets_float32() -> None:
    assert choose("auto", CONVOLUTIONAL, torch.device("mps")) == PLAIN


def test_the_choice_leaves_the_model_alone() -> None:
    before = [weight.clone() for weight in CONVOLUTIONAL.parameters()]
    choose("bf16", CONVOLUTIONAL, CPU)
    for weight, was in zip(CONVOLUTIONAL.parameters(), before, strict=True):
        assert weight.dtype == torch.float32 and torch.equal(weight, was)


@pytest.mark.parametrize("error", [None, ValueError])
def test_what_is_reported_is_computed_without_the_callers_shortcuts(error: type[Exception] | None) -> None:
    """Inside: no autocast, no TF32, no bfloat16 in float32 products; afterwards all as it was, whatever happens."""

    def settings() -> tuple[str, bool, bool, bool]:
        cudnn = torch.backends.cudnn
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, torch.is_autocast_enabled("cpu")

    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            before = settings()
            assert DENSE(torch.ones(1, 3)).dtype == torch.bfloat16
            try:
                with as_reported(CPU):
                    assert DENSE(torch.ones(1, 3)).dtype == torch.float32
                    assert settings() == ("highest", False, False, False)
                    if error is not None:
                        raise error
            except ValueError:
                assert error is ValueError
            assert settings() == before
    finally:
        torch.set_float32_matmul_precision("highest")
