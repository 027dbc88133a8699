"""The fields of RobustBench, with null for unknown values."""

from dataclasses import replace

import pytest

from support.toys import QUICK, blobs, linear
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.robustbench import model_info
from unperturbed.findings import Outcome
from unperturbed.suites.autoattack import STANDARD
from unperturbed.threat import Threat

FIELDS = {
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps"),
    *("clean_acc", "reported", "autoattack_acc", "external", "unreliable", "footnote"),
}


def outcome(threat: Threat) -> Outcome:
    return evaluate(linear(6, 3), blobs(60), threat, QUICK)


def test_what_is_not_known_is_null() -> None:
    info = model_info(outcome(Threat("Linf", 8 / 255)), dataset="blobs", architecture="Linear")
    assert set(info) == FIELDS
    known = {key for key, value in info.items() if value is not None}
    assert known == {"dataset", "architecture", "eps", "clean_acc", "footnote"}
    assert "n=60" in info["footnote"] and "suite pgd" in info["footnote"]


@pytest.mark.parametrize(
    ("threat", "eps"),
    [
        (Threat("Linf", 8 / 255), "8/255"),
        (Threat("L2", 0.5), "0.5"),
        (Threat("L2", 0.25, (-1.0, 2.0)), "0.25"),
        (Threat("L1", 12.0, None), "12"),
    ],
)
def test_the_radius_is_written_as_they_write_it(threat: Threat, eps: str) -> None:
    assert model_info(outcome(threat), dataset="blobs", architecture="Linear")["eps"] == eps


def test_only_the_standard_suite_gives_an_accuracy_under_autoattack() -> None:
    some = outcome(Threat("Linf", 0.03))
    standard = replace(some, suite="standard", note=STANDARD.note + STANDARD.few_classes)
    info = model_info(standard, dataset="blobs", architecture="Linear", additional_data=False, number_forward_passes=1)
    assert info["autoattack_acc"] == f"{100 * some.counts['survived'] / 60:.2f}" and info["additional_data"] is False
    assert info["clean_acc"] == f"{100 * some.clean_accuracy.value:.2f}"
    own = replace(some, suite="standard", note="my own")
    assert model_info(own, dataset="blobs", architecture="Linear")["autoattack_acc"] is None


def test_what_could_not_be_decided_is_told() -> None:
    some = outcome(Threat("Linf", 0.03))
    unknown = replace(some, counts={**some.counts, "unknown": 3})
    assert "3 of them could not be decided" in model_info(unknown, dataset="b", architecture="L")["footnote"]
