"""The rule for bfloat16 and channels-last."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn

from support.examples import make_batch, network
from unperturbed.curvature.products import cross_entropy_with, forward_slope, gradient_with_graph, not_proven
from unperturbed.errors import InputError
from unperturbed.networks import precision
from unperturbed.networks.modes import clean_batch_stats, eager, is_eager
from unperturbed.networks.precision import InPrecision, Precision, Requested, as_reported, choose, full_float32, plainly
from unperturbed.networks.settings import Layout
from unperturbed.types import Inputs, Logits

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
@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
def test_a_processor_is_asked_what_it_multiplies(
    avx512: bool, amx: bool, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of torch to AVX2 (ATEN_CPU_CAPABILITY), it counts as a processor without bfloat16."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    native = capability == "AVX512" and (avx512 or amx)
    assert choose("auto", CONVOLUTIONAL, CPU) == (FAST if native else PLAIN)


@pytest.mark.parametrize(
    ("layout", "expected"), [("contiguous", torch.contiguous_format), ("channels-last", torch.channels_last)]
)
@pytest.mark.parametrize("native", [True, False])
def test_layout_and_compilation_by_hand(
    layout: Layout, expected: torch.memory_format, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_native_bfloat16", lambda device: native)
    for model in (CONVOLUTIONAL, DENSE):
        chosen = choose("auto", model, CPU, layout, True)
        assert (chosen.memory_format, chosen.compiled) == (expected, True)
        assert chosen.name == choose("auto", model, CPU).name


def test_only_batches_of_one_size_run_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def compiled(network: nn.Module) -> Any:
        return lambda x: sizes.append(len(x)) or network(x)

    monkeypatch.setattr(torch, "compile", compiled)
    model = InPrecision(network("norm"), compile=True, compiled_size=8)
    for n in (8, 4, 8, 16):
        model(make_batch(n).x)
    assert sizes == [8, 8] and model.is_compiled


def test_cuda_graphs_are_compiled_in_their_mode_and_their_outputs_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    modes, outputs = list[Any](), list[torch.Tensor]()

    def compiled(network: nn.Module, **options: Any) -> Any:
        modes.append(options)

        def overwriting(x: torch.Tensor) -> torch.Tensor:
            """Return the same memory at each call, as a graph does."""
            if not outputs:
                outputs.append(torch.empty(len(x), 3))
            return outputs[0].copy_(network(x).detach())

        return overwriting

    monkeypatch.setattr(torch, "compile", compiled)
    model, x = InPrecision(network("norm"), compile="reduce-overhead"), make_batch().x
    first = model(x)
    kept = first.clone()
    model(x.flip(0))
    assert modes == [{"mode": "reduce-overhead"}] and torch.equal(first, kept) and not torch.equal(outputs[0], kept)
    InPrecision(network("norm"), compile=True)
    assert modes[1:] == [{}]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_cuda_graphs_on_another_device_are_refused(device: str) -> None:
    message = f"compile is 'reduce-overhead', which launches CUDA graphs, but the device is {device}"
    with pytest.raises(InputError, match=message):
        choose("auto", CONVOLUTIONAL, torch.device(device), compiled="reduce-overhead")
    chosen = choose("32", CONVOLUTIONAL, torch.device("cuda"), compiled="reduce-overhead")
    assert str(chosen) == "float32, contiguous, compiled with CUDA graphs"


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


@pytest.mark.parametrize("within", [full_float32, lambda: as_reported(CPU)])
@pytest.mark.parametrize("enabled", [False, True])
def test_cudnn_switched_off_by_the_user_is_not_switched_on_again(
    within: Callable[[], AbstractContextManager[None]], enabled: bool
) -> None:
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=enabled):
        with within():
            assert cudnn.enabled == enabled and not cudnn.allow_tf32
        assert cudnn.enabled == enabled


def test_the_processors_bfloat16_settings_are_off_inside_and_back_afterwards() -> None:
    """A user's setting of one backend alone raised an error, and convolutions stayed in bfloat16."""
    mkldnn = torch.backends.mkldnn
    try:
        mkldnn.matmul.fp32_precision = mkldnn.conv.fp32_precision = "bf16"
        with as_reported(CPU):
            assert mkldnn.matmul.fp32_precision == mkldnn.conv.fp32_precision == "ieee"
        assert mkldnn.matmul.fp32_precision == mkldnn.conv.fp32_precision == "bf16"
    finally:
        mkldnn.matmul.fp32_precision = mkldnn.conv.fp32_precision = "none"


class Recorded(nn.Module):
    """Notes for each forward whether autocast was on, and in what type the first product came out."""

    forward_mode = True

    def __init__(self) -> None:
        super().__init__()
        self.inner = network("norm")
        self.seen: list[tuple[bool, torch.dtype]] = []

    def forward(self, x: Inputs) -> Logits:
        self.seen.append((torch.is_autocast_enabled("cpu"), self.inner[0](x).dtype))
        logits: Logits = self.inner(x)
        return logits


def test_plainly_runs_trainings_networks_in_their_weights_precision() -> None:
    """Inside InPrecision and inside a caller's autocast; afterwards, and after an exception, all is as before."""
    recorded, x = Recorded(), make_batch().x
    model, exact = InPrecision(recorded, torch.bfloat16), recorded.inner
    half = model(x)
    assert half.dtype == torch.float32, "logits come in the type of the inputs"
    with pytest.raises(KeyError), torch.autocast("cpu", torch.bfloat16), plainly():
        full = model(x)
        with plainly():
            model(x)
        model(x)
        raise KeyError
    model(x)
    plain, mixed = (False, torch.float32), (True, torch.bfloat16)
    assert recorded.seen == [mixed, plain, plain, plain, mixed]
    torch.testing.assert_close(full, exact(x))
    assert 1e-4 < (half - full).abs().max() < 0.3


def test_without_autocast_a_network_is_left_alone() -> None:
    recorded, x = Recorded(), make_batch().x
    with torch.autocast("cpu", torch.bfloat16):
        inside = InPrecision(recorded)(x)
    assert torch.equal(inside, recorded.inner(x)) and torch.equal(inside, InPrecision(recorded)(x))
    assert [seen[0] for seen in recorded.seen] == [False, False]
    assert InPrecision(network("norm").double())(x.double()).dtype == torch.float64


def test_derivatives_see_no_autocast_in_their_backward_either() -> None:
    """Gradients and tangents inside `plainly` are those of the bare network, in every bit."""
    bare, batch = network("norm"), make_batch()
    model, loss, v = InPrecision(network("norm"), torch.bfloat16), cross_entropy_with(batch.y), torch.ones_like(batch.x)
    assert not_proven(model) is None
    with plainly():
        for form in (gradient_with_graph, lambda *given: forward_slope(*given[:2], v, loss)):
            with clean_batch_stats(model), clean_batch_stats(bare):
                for mine, theirs in zip(form(model, batch.x, loss), form(bare, batch.x, loss), strict=True):
                    assert torch.equal(mine, theirs)


def test_compiled_networks_run_as_written_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled in ordinary forwards alone; the weights are listed once, under the same names."""
    calls: list[str] = []

    def compiled(network: nn.Module) -> nn.Module:
        class Compiled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network

            def forward(self, x: Inputs) -> Logits:
                calls.append("compiled")
                logits: Logits = self.inner(x)
                return logits

        return Compiled()

    monkeypatch.setattr(torch, "compile", compiled)
    model, x = InPrecision(network("norm"), compile=True), make_batch().x
    assert list(model.state_dict()) == list(InPrecision(network("norm")).state_dict())
    assert len(list(model.parameters())) == len(list(network("norm").parameters()))
    for block, expected in ((None, 1), (plainly(), 0), (eager(), 0), (clean_batch_stats(model), 0), (None, 1)):
        calls.clear()
        if block is None:
            model(x)
        else:
            with block:
                assert is_eager()
                model(x)
        assert len(calls) == expected
    assert not is_eager()
