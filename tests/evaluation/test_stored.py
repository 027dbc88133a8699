"""Edited files of stored evaluations: an error that names the fault, or the measured numbers."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.sealed import reseal
from support.toys import QUICK, blobs, linear
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.comparison import compare
from unperturbed.evaluation.stored import NEEDED, read_summary, stored_evaluations, with_examples
from unperturbed.evaluation.union import union
from unperturbed.findings import Outcome
from unperturbed.runs.verify import SEAL, read_sealed
from unperturbed.threat import Threat

JUNK = (None, True, 10**400, float("nan"), float("inf"), "text", [None], {"a": 1})
MEASURED = ("n", "counts", "clean_accuracy", "robust_accuracy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("stored")
    return folder, evaluate(linear(6, 3), blobs(20), Threat("L2", 0.1), QUICK, out=folder / "evaluation")


def read(folder: Path) -> Outcome:
    ((summary, found),) = stored_evaluations(folder).items()
    whole = with_examples(summary, found)
    compare({"a": whole, "b": whole}).json()
    union([whole, whole]).json()
    sum(attack.forwards for attack in whole.attacks)
    return whole


def places(content: dict[str, Any]) -> list[list[Any]]:
    """Return the places to edit: every field, every value of small mappings, and the first of every list."""
    inner = [["counts", "broken"], ["attacks", 0], ["interval", 1], ["clean_interval", 0]]
    inner += [["environment", name] for name in NEEDED]
    return [[name] for name in content] + inner + [["attacks", 0, name] for name in content["attacks"][0]]


def edited(value: Any, place: list[Any], junk: Any) -> Any:
    changed = copy.deepcopy(value)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = junk
    return changed


@pytest.mark.long
@pytest.mark.slow
def test_no_edit_of_a_summary_ends_in_a_traceback_or_in_other_numbers(run: tuple[Path, Outcome]) -> None:
    folder, outcome = run
    path = folder / "evaluation/pgd.json"
    content = read_sealed(path)
    truth, refused = [getattr(outcome, name) for name in MEASURED], 0
    try:
        for place, junk in itertools.product(places(content), JUNK):
            reseal(path, edited(content, place, junk))
            try:
                found = [getattr(read(folder), name) for name in MEASURED]
                assert [str(value) for value in found] == [str(value) for value in truth], (place, junk)
            except InputError as error:
                refused += 1
                assert "pgd.json" in str(error), (place, junk)
        for name in content:
            reseal(path, {key: value for key, value in content.items() if key != name})
            with pytest.raises(InputError, match=name):
                read_summary(path)
    finally:
        reseal(path, content)
    assert refused > 150 and read(folder).counts == outcome.counts


@pytest.mark.parametrize("field, more", [("robust_after", 0.05), ("broken", 1), ("broken", -1)])
def test_a_record_of_an_attack_that_the_verdicts_contradict_is_refused(
    run: tuple[Path, Outcome], field: str, more: float
) -> None:
    folder, _ = run
    path = folder / "evaluation/pgd.json"
    content = read_sealed(path)
    try:
        reseal(path, edited(content, ["attacks", 0, field], content["attacks"][0][field] + more))
        with pytest.raises(InputError, match="broke .* examples and left .*: it was changed"):
            read(folder)
    finally:
        reseal(path, content)


@pytest.mark.parametrize(
    "place, value", [(["threat"], "L2:0.3"), (["suite"], "standard"), (["environment", "seed"], 7)]
)
def test_a_summary_that_says_something_else_than_its_job_is_refused(
    run: tuple[Path, Outcome], place: list[Any], value: object
) -> None:
    """One bit makes another radius of a digit, and nothing in the table tells it."""
    folder, _ = run
    path = folder / "evaluation/pgd.json"
    content = read_sealed(path)
    try:
        reseal(path, edited(content, place, value))
        with pytest.raises(InputError, match=f"says {place[-1]} .*job.json .*: it was changed"):
            read(folder)
    finally:
        reseal(path, content)


@pytest.mark.parametrize("junk", ["[]", "7", '{"is_of": 3}', '{"is_of": {}, "block": "x"}', "{", '"text"', "[[[["])
def test_an_edited_job_is_not_read_and_the_same_command_writes_it_again(run: tuple[Path, Outcome], junk: str) -> None:
    folder, outcome = run
    path = folder / "evaluation/pgd/job.json"
    content = path.read_text()
    path.write_text(junk)
    try:
        with pytest.raises(InputError, match="missing or damaged"):
            read(folder)
        with pytest.raises(InputError, match="overwrite"):
            evaluate(linear(6, 3), blobs(20), Threat("L2", 0.1), QUICK, out=folder / "evaluation", seed=1)
        evaluate(linear(6, 3), blobs(20), Threat("L2", 0.2), QUICK, out=folder / "larger")
        assert path.read_text() == junk
        again = evaluate(linear(6, 3), blobs(20), Threat("L2", 0.1), QUICK, out=folder / "evaluation")
        assert again.examples == outcome.examples and again.warnings[-1].startswith("Loaded from")
        assert path.read_text() == content and read(folder).counts == outcome.counts
    finally:
        path.write_text(content)


class Steps(nn.Module):
    """Logits in steps: their gradient at the inputs is exactly 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.w.T) * 20).round() + 0 * x.sum()


@pytest.mark.parametrize("entry", ["doubts", "warnings"])
def test_a_doubt_deleted_by_hand_is_noticed_whatever_becomes_of_the_hash(tmp_path: Path, entry: str) -> None:
    outcome = evaluate(Steps(), blobs(20), Threat("L2", 0.1), QUICK, out=tmp_path / "evaluation")
    assert "the gradient is 0" in outcome.doubts
    path = tmp_path / "evaluation/pgd.json"
    whole = json.loads(path.read_text())
    assert read(tmp_path).doubts == outcome.doubts
    changed = whole | {entry: []}
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="was changed after it was written"):
        read_summary(path)
    path.write_text(json.dumps({name: value for name, value in changed.items() if name != SEAL}))
    with pytest.raises(InputError, match=f"has no '{SEAL}'"):
        read_summary(path)
    reseal(path, changed)
    with pytest.raises(InputError, match="lacks the warning 'The gradient|lacks the warning 'the gradient"):
        read(tmp_path)
