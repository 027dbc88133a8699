"""`unperturbed suite suggest`: the table, the line that runs the order, and what it refuses."""

import json

import pytest
from test_main import TRAIN, Run
from test_main import run as run


@pytest.mark.slow
def test_an_order_is_proposed_with_the_line_that_runs_it(run: Run) -> None:
    run(*TRAIN)
    for suite in ("pgd-ce", "pgd-margin"):
        run("evaluate", "runs/blobs-at", "--suite", suite, "--threat", "Linf:0.3")
    code, out, err = run("suite", "suggest", "runs/blobs-at")
    assert code == 0 and "breaks per 1,000 passes" in out and "From 2 evaluations" in out, err
    assert "unperturbed evaluate RUN --suite pgd-" in out
    code, out, _ = run("suite", "suggest", "runs/blobs-at", "--json")
    order = json.loads(out)
    broken = [step["broken"] for step in order["steps"]]
    assert code == 0 and order["standing"] == order["steps"][0]["standing"] - sum(broken) and min(broken) > 0


def test_another_word_than_suggest_is_refused(run: Run) -> None:
    for words, part in ((("suite",), "suite suggest RUN"), (("suite", "propose", "runs/at"), "suite propose runs/at")):
        code, out, err = run(*words)
        assert (code, out) == (2, "") and part in err
