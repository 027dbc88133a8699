"""An example that breaks in a smaller ball is broken in a larger one: robust accuracy never rises with eps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.sealed import reseal
from support.toys import QUICK, SHORT, blobs, linear
from unperturbed.attacks.eot import RandomTransform
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.carry import CARRIED
from unperturbed.evaluation.quantize import quantize
from unperturbed.evaluation.stored import read_summary, with_examples
from unperturbed.evaluation.threats import evaluate_threats
from unperturbed.evaluation.union import union
from unperturbed.findings import Outcome
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

RADII = [Threat("Linf", eps) for eps in (0.05, 0.1, 0.3)]
ATTACK = Suite("one", (GradientAttack("PGD", cross_entropy, PGD(steps=10, random_start=False)),), "a test")


class Pocket(nn.Module):
    """Wrong in a thin layer near every example, which long steps jump over."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        u = (x[:, 0] - 0.5).abs() * self.w
        far = torch.where(u < 0.08, -0.2 + 40 * (u - 0.04), 1.4 - 2 * (u - 0.08))
        m = torch.where(u < 0.04, 0.6 - 20 * u, far) * torch.where(x[:, 1] > 0.5, 1.0, -1.0)
        return torch.stack([-m, m], 1)


def pockets(n: int = 40) -> tuple[Tensor, Tensor]:
    draw, y = torch.Generator().manual_seed(0), torch.arange(n) % 2
    first = 0.5 + (torch.rand(n, generator=draw) - 0.5) * 0.008
    return torch.stack([first, torch.where(y == 1, 0.95, 0.05), torch.rand(n, generator=draw)], 1), y


def robust(outcomes: tuple[Outcome, ...]) -> list[float]:
    return [outcome.robust_accuracy.value for outcome in outcomes]


@pytest.mark.slow
def test_robust_accuracy_does_not_rise_with_eps_where_long_steps_jump_over_the_errors() -> None:
    alone = [evaluate(Pocket(), pockets(), threat, ATTACK).robust_accuracy.value for threat in RADII]
    assert alone[0] == 0 and alone[2] > 0.5, "the larger ball alone hides what the smaller one shows"
    outcomes = evaluate_threats(Pocket(), pockets(), RADII, ATTACK)
    assert robust(outcomes) == [0.0, 0.0, 0.0]
    largest = outcomes[2]
    assert "PGD under Linf:0.05" in largest.examples["attack"] and set(largest.examples["verdict"]) == {"broken"}
    assert largest.attacks[-1].robust_after == 0 and sum(each.broken for each in largest.attacks) == 40
    assert any("Linf:0.05" in text for text in largest.warnings)
    x, y = pockets()
    assert RADII[2].contains(x, largest.adversarial).all(), "row k belongs to broken example k"
    assert (Pocket()(largest.adversarial).argmax(1) != y).all()


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_the_radii_does_not_matter(order: tuple[int, ...]) -> None:
    outcomes = evaluate_threats(Pocket(), pockets(), [RADII[number] for number in order], ATTACK)
    assert robust(outcomes) == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_points_are_kept_and_read_again_also_by_an_evaluation_at_one_radius(tmp_path: Path) -> None:
    first = evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=tmp_path)
    again = evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=tmp_path)
    assert robust(first) == robust(again) == [0.0, 0.0, 0.0]
    assert first[2].examples == again[2].examples and first[2].counts == again[2].counts
    folder = tmp_path / "Linf-0.3"
    one = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=folder)
    assert one.robust_accuracy.value == 0 and one.examples["attack"] == first[2].examples["attack"]
    assert json.loads((folder / "one.json").read_text())["robust_accuracy"] == 0
    assert any(text.startswith("Loaded from") for text in one.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("a", "b", "c"), (".", "Linf-0.1", "Linf-0.3"), ("x", "x/y", "x/y/z")])
def test_calls_one_by_one_count_what_a_stored_smaller_radius_has_broken(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    places = [tmp_path / folder for folder in folders]
    calls = [evaluate(Pocket(), pockets(), t, ATTACK, out=out) for t, out in zip(RADII, places, strict=True)]
    assert [call.robust_accuracy.value for call in calls] == [0.0, 0.0, 0.0]
    largest = calls[2]
    told = [text for text in largest.warnings if "broke under Linf:" in text]
    assert [int(text.split()[0]) for text in told] == [
        sum(each.startswith("PGD under") for each in largest.examples["attack"])
    ]
    again = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=places[2])
    assert again.counts == largest.counts and again.examples["attack"] == largest.examples["attack"]
    summary = places[2] / "one.json"
    assert with_examples(summary, read_summary(summary)).examples["verdict"] == ["broken"] * 40


@pytest.mark.slow
def test_a_stored_larger_radius_is_corrected_when_it_is_read_again(tmp_path: Path) -> None:
    first = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=tmp_path / "large")
    evaluate(Pocket(), pockets(), RADII[0], ATTACK, out=tmp_path / "small")
    again = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=tmp_path / "large")
    assert first.robust_accuracy.value > 0.5 and again.robust_accuracy.value == 0
    assert json.loads((tmp_path / "large/one.json").read_text())["robust_accuracy"] == 0


@pytest.mark.slow
def test_only_stored_points_of_the_same_network_examples_and_suite_count(tmp_path: Path) -> None:
    """Nor do those of a larger radius, or of an evaluation that was changed by hand."""
    other, stronger = Pocket(), replace(ATTACK, attacks=(*ATTACK.attacks, *QUICK.attacks))
    other.w.data.fill_(0.999)
    evaluate(other, pockets(), RADII[0], ATTACK, out=tmp_path / "a")
    evaluate(Pocket(), pockets(30), RADII[0], ATTACK, out=tmp_path / "b")
    evaluate(Pocket(), pockets(), RADII[0], stronger, out=tmp_path / "c")
    evaluate(Pocket(), pockets(), RADII[0], ATTACK, out=tmp_path / "d")
    changed = json.loads((tmp_path / "d/one.json").read_text()) | {"threat": "Linf:0.4"}
    reseal(tmp_path / "d/one.json", changed)
    found = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=tmp_path / "e")
    assert found.counts == evaluate(Pocket(), pockets(), RADII[2], ATTACK).counts
    assert found.robust_accuracy.value > 0.5


@pytest.mark.slow
def test_points_of_another_evaluation_in_the_same_folder_do_not_count(tmp_path: Path) -> None:
    evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=tmp_path)
    x, y = pockets(30)
    folder = tmp_path / "Linf-0.3"
    other = evaluate(Pocket(), (x, y), RADII[2], ATTACK, out=folder, overwrite=True)
    assert not (folder / "one" / CARRIED).exists() and other.robust_accuracy.value > 0.5


@pytest.mark.slow
def test_damaged_points_are_told(tmp_path: Path) -> None:
    evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=tmp_path)
    path = tmp_path / "Linf-0.3/one" / CARRIED
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    one = evaluate(Pocket(), pockets(), RADII[2], ATTACK, out=tmp_path / "Linf-0.3")
    assert any("damaged" in text for text in one.warnings)
    assert robust(evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=tmp_path)) == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_what_breaks_in_an_l2_ball_is_broken_in_an_linf_ball_that_holds_it() -> None:
    threats = [Threat("L2", 0.05), Threat("Linf", 0.3), Threat("L1", 0.001)]
    outcomes = evaluate_threats(Pocket(), pockets(), threats, ATTACK)
    assert robust(outcomes)[:2] == [0.0, 0.0] and robust(outcomes)[2] == 1.0
    assert union(outcomes).robust_accuracy.value == 0


@pytest.mark.slow
def test_eight_bit_images_are_written_of_carried_points_too(tmp_path: Path) -> None:
    x, y = pockets()
    levels = (x * 255).round().div(255).view(-1, 1, 1, 3)
    threats = [Threat("Linf", eps / 255) for eps in (13, 76)]
    outcomes = evaluate_threats(Pocket(), (levels, y), threats, ATTACK, out=tmp_path)
    assert outcomes[1].counts["broken"] == 40
    folder = tmp_path / f"Linf-{76 / 255!r}"
    made = quantize(Pocket(), (levels, y), threats[1], outcomes[1], out=folder)
    assert sorted(made.examples["id"]) == sorted(outcomes[1].examples["id"])
    assert len(list((folder / "one/png").glob("*.png"))) == 40
    memory = evaluate_threats(Pocket(), (levels, y), threats, ATTACK)
    held = quantize(Pocket(), (levels, y), threats[1], memory[1])
    assert dict(zip(held.examples["id"], held.examples["verdict"], strict=True)) == dict(
        zip(made.examples["id"], made.examples["verdict"], strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("suite", [*SHORT, QUICK], ids=lambda suite: suite.name)
def test_no_suite_gives_a_rising_curve(suite: Suite) -> None:
    outcomes = evaluate_threats(linear(6, 3), blobs(40), [Threat("L2", eps) for eps in (0.05, 0.1, 0.2)], suite)
    values = robust(outcomes)
    assert values == sorted(values, reverse=True) and values[0] > values[2]
    for outcome in outcomes:
        assert sum(outcome.counts.values()) == 40


@pytest.mark.slow
def test_means_over_draws_do_not_rise_either() -> None:
    model = nn.Sequential(RandomTransform(lambda x: x + 0.002 * torch.randn_like(x), Pocket()))
    suite = Suite("rand", (GradientAttack("PGD", cross_entropy, PGD(steps=10), draws=4),), "a test")
    outcomes = evaluate_threats(model, pockets(20), [RADII[2], RADII[0]], suite)
    assert outcomes[0].robust_accuracy.value <= outcomes[1].robust_accuracy.value


def test_threats_are_given_once_and_with_a_folder_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="each once"):
        evaluate_threats(Pocket(), pockets(), [RADII[0], RADII[0]], ATTACK)
    with pytest.raises(InputError, match="at least one"):
        evaluate_threats(Pocket(), pockets(), [], ATTACK)
    with pytest.raises(InputError, match="3 threats and 1 folders"):
        evaluate_threats(Pocket(), pockets(), RADII, ATTACK, out=[tmp_path])
