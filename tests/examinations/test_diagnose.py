"""Diagnostics run on a subject: what is kept is used again, what has changed is not, and one failure stops no other."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.architectures import built, images
from support.examples import network, same, snapshot
from support.shares import first
from unperturbed.data.split import array_split
from unperturbed.errors import InputError
from unperturbed.examinations.by_name import BUILT_IN
from unperturbed.examinations.compare import CLAIMS
from unperturbed.examinations.runner import diagnose
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Line, Number
from unperturbed.losses import cross_entropy
from unperturbed.threat import Threat

CALLS = "test_diagnose"
"""A logger that counts calls: a diagnostic whose module or environment changes is another diagnostic."""
THREAT = Threat("Linf", 0.1)


def calls(log: pytest.LogCaptureFixture) -> int:
    return sum(record.name == CALLS for record in log.records)


def told(subject: Subject) -> Finding:
    """Everything that a finding can hold."""
    logging.getLogger(CALLS).warning("called")
    values = Distribution(
        "losses", tuple(cross_entropy(subject.test_logits, subject.test.y).tolist()), tuple(range(12)), log=True
    )
    line = Line("curve", (0.0, 1.0), (0.5, None), (0.4, None), (0.6, None))
    return Finding(
        "Told", "It is told.", (Number("seen", float(len(subject.test.y)), 3),), (values,), (line,), ("A note.",)
    )


def broken(subject: Subject) -> Finding:
    """Raise."""
    raise RuntimeError("no such layer")


def wrong(subject: Subject) -> Any:
    """Return something else."""
    return "found"


def data(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, 2, 4, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def test_what_is_kept_is_not_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, out = network("plain"), tmp_path / "diagnosis.json"
    first = diagnose(model, data(), THREAT, diagnostics=[told], out=out)
    again = diagnose(model, data(), THREAT, diagnostics=[told], out=out)
    assert calls(caplog) == 1 and again.examined == first.examined and not again.made_again
    assert json.loads(out.read_text())["findings"]["test_diagnose:told"]["finding"]["title"] == "Told"


@pytest.mark.parametrize("what", ["weights", "test", "train", "threat", "seed"])
def test_what_differs_is_named_and_made_again(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "diagnosis.json"
    model, test, train, threat, seed = network("plain"), data(), data(seed=1), THREAT, 0
    diagnose(model, test, threat, train=train, diagnostics=[told], seed=seed, out=out)
    if what == "weights":
        model = network("plain", seed=3)
    test = data(seed=5) if what == "test" else test
    train = data(seed=5) if what == "train" else train
    threat = Threat("Linf", 0.2) if what == "threat" else threat
    seed = 1 if what == "seed" else seed
    found = diagnose(model, test, threat, train=train, diagnostics=[told], seed=seed, out=out)
    assert what in found.made_again and calls(caplog) == 2


def test_a_failure_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    found = diagnose(network("plain"), data(), THREAT, diagnostics=[broken, told], out=tmp_path / "d.json")
    assert found.failed == {"test_diagnose:broken": "RuntimeError: no such layer"}
    assert [each.title for each in found.examined.findings] == ["Told"]


def test_what_is_no_finding_is_refused() -> None:
    with pytest.raises(InputError, match="returned str, but must return a Finding"):
        diagnose(network("plain"), data(), THREAT, diagnostics=[wrong])


def test_another_file_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "diagnosis.json"
    out.write_text("my notes")
    with pytest.raises(InputError, match="is no diagnosis"):
        diagnose(network("plain"), data(), THREAT, diagnostics=[told], out=out)
    assert out.read_text() == "my notes"


def test_the_first_examples_are_examined_under_their_names() -> None:
    seen = []

    def see(subject: Subject) -> Finding:
        assert subject.train is not None
        seen.append((subject.test, subject.train, subject.classes))
        return Finding("Seen", "")

    x, y = data(20)
    diagnose(network("plain"), (x, y), THREAT, train=array_split(x.flip(0), y.flip(0)), diagnostics=[see], examples=5)
    ((test, train, classes),) = seen
    assert torch.equal(test.x, x[:5]) and test.ids.tolist() == [0, 1, 2, 3, 4] and classes == 3
    assert torch.equal(train.x, x.flip(0)[:5])


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="examples is 0"):
        diagnose(network("plain"), data(), THREAT, diagnostics=[told], examples=0)


def test_the_model_and_its_data_are_left_as_they_were() -> None:
    model, (x, y) = network("norm").train(), data()
    before = snapshot(model, x, y)
    diagnose(model, (x, y), THREAT, train=(x, y), diagnostics=[told])
    assert same(before, snapshot(model, x, y))


def test_worst_case_points_lie_in_the_threat_set_and_raise_the_loss() -> None:
    model, (x, y) = network("plain"), data()
    points = []

    def see(subject: Subject) -> Finding:
        points.append(subject.worst_test)
        assert subject.worst_test is points[0], "computed once"
        return Finding("Seen", "")

    diagnose(model, (x, y), THREAT, diagnostics=[see])
    assert bool(THREAT.contains(x, points[0]).all())
    assert bool((cross_entropy(model(points[0]), y) >= cross_entropy(model(x), y)).all())


def test_worst_case_points_are_the_worst_where_float32_has_no_loss_left() -> None:
    """Two classes, f = (0, w x), margins of 40: the worst point is the corner of the cube all the same."""
    w = torch.tensor([10.0, -20.0, 5.0, 15.0])
    model = nn.Linear(4, 2, bias=False)
    model.load_state_dict({"weight": torch.stack([-w, w])})
    x = torch.full((3, 4), 0.5) + 0.4 * w.sign()
    points = []

    def see(subject: Subject) -> Finding:
        points.append(subject.worst_test)
        return Finding("Seen", "")

    diagnose(model, (x, torch.ones(3).long()), THREAT, diagnostics=[see])
    torch.testing.assert_close(points[0], x - 0.1 * w.sign())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_finding_that_cannot_be_kept_is_a_failure_and_the_others_go_on(value: Any, tmp_path: Path) -> None:
    def of_nothing(subject: Subject) -> Finding:
        return Finding("Mean", "", (Number("mean", value, 0),))

    found = diagnose(network("plain"), data(), THREAT, diagnostics=[of_nothing, told], out=tmp_path / "d.json")
    assert [error.partition("(")[0] for error in found.failed.values()] == [
        "RunError: its finding is not of finite, plain numbers, as JSON is "
    ]
    assert [each.title for each in found.examined.findings] == ["Told"]


@pytest.mark.parametrize("text", ["[]", '{"of": null, "findings": {}}', '{"of": {}, "findings": []}'])
def test_other_json_in_the_way_is_not_written_over(text: str, tmp_path: Path) -> None:
    out = tmp_path / "diagnosis.json"
    out.write_text(text)
    with pytest.raises(InputError, match="is no diagnosis"):
        diagnose(network("plain"), data(), THREAT, diagnostics=[told], out=out)
    assert out.read_text() == text


def test_a_diagnostic_without_a_file_is_asked_again(tmp_path: Path) -> None:
    """As in a notebook, where the same name may be another function by now."""
    out, found = tmp_path / "d.json", []
    for value in (1.0, 2.0):
        names: dict[str, Any] = {"Finding": Finding, "Number": Number, "__name__": "__main__"}
        exec(compile(f"def f(s): return Finding('F', '', (Number('v', {value}, 1),))", "<stdin>", "exec"), names)
        found.append(diagnose(network("plain"), data(), THREAT, diagnostics=[names["f"]], out=out).examined)
    assert [each.number("v") for each in found] == [1.0, 2.0]


def test_a_finding_survives_its_json() -> None:
    found = diagnose(network("plain"), data(), THREAT, diagnostics=[told]).examined.findings[0]
    assert Finding.of(json.loads(json.dumps(found.json()))) == found


def test_built_in_names_are_short_and_differ() -> None:
    names = list(BUILT_IN)
    assert len(set(names)) == len(names) and not any(":" in name for name in names)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.SiLU(), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_every_diagnostic_looks_at_a_network_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    model, (x, y) = convolutions(), data(24)
    before = snapshot(model, x, y)
    found = diagnose(model, (x, y), THREAT, train=data(24, seed=1), out=tmp_path / "diagnosis.json")
    assert found.failed == {} and len(found.examined.findings) == len(BUILT_IN)
    assert same(before, snapshot(model, x, y))
    for each in found.examined.findings:
        assert each.title and each.summary
        json.dumps(each.json(), allow_nan=False)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", first(1, ["mlp", "grouped", "torchvision", "timm", "sequence first"]))
def test_transformers_grouped_convolutions_and_mlps_go_through_without_special_cases(name: str) -> None:
    x, y = images(10), torch.arange(10) % 3
    found = diagnose(built(name), (x, y), THREAT, train=(images(10, seed=1), y))
    assert found.failed == {} and len(found.examined.findings) == len(BUILT_IN)
    for quantity in (claim.quantity for claim in CLAIMS):
        values = found.examined.distribution(quantity)
        assert values is not None and len(values.values) == 10 and values.missing == 0


def test_training_examples_that_repeat_are_examined_once(tmp_path: Path) -> None:
    """An oversampled class: findings pair the values of examples by their ids."""
    x, y = data(8)
    repeated = array_split(x, y)[[3, 0, 0, 5, 3]]
    found = list[list[int]]()

    def seen(subject: Subject) -> Finding:
        assert subject.train is not None
        found.append(subject.train.ids.tolist())
        return told(subject)

    examined = diagnose(network("plain"), data(), Threat("Linf", 0.1), train=repeated, diagnostics=[seen])
    assert found == [[3, 0, 5]]
    assert any("2 of the 5 training examples have the id of another one" in text for text in examined.notes)
