"""A rebuilt mechanism changes no number: thirty outcomes against the stored record, or, elsewhere, against themselves.

The record, `support/golden.json`, holds short hashes by environment (the instruction set of the processor, the version
of torch, and how MKL rounds). `python -m support.golden FILE` in this folder makes an entry, on the commit whose
numbers are to stand; a commit that changes one says why. An entry lacks the outcomes that were changed since, and not
recorded in its environment.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from support import golden

RECORD: dict[str, dict[str, str]] = {
    record["environment"]: record["outcomes"]
    for record in json.loads((Path(__file__).parent / "support/golden.json").read_text())
}


@pytest.mark.slow
def test_the_outcomes_are_those_of_the_record() -> None:
    environment = golden.environment()
    if environment not in RECORD:
        pytest.skip(f"golden.json has no record for {environment}, only for {'; '.join(RECORD)}: see this file's top")
    expected, now = RECORD[environment], dict(golden.outcomes())
    assert now.keys() >= expected.keys()
    assert {name for name in expected if now[name] != expected[name]} == set()


@pytest.mark.long
@pytest.mark.slow
def test_two_calls_and_a_resumed_one_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any environment: training stopped and resumed as undisturbed, and two evaluations of one network."""
    monkeypatch.chdir(tmp_path)
    undisturbed = golden.interrupted(out="undisturbed", stopped=False)
    assert golden.interrupted(out="stopped") == undisturbed
    golden.command(f"{golden.TRAIN} --method erm --out at")
    tables = golden.calls()["evaluate in Python"]
    assert repr(tables()) == repr(tables())


def test_the_record_names_its_environments() -> None:
    assert RECORD and all(" torch " in name and len(outcomes) >= 26 for name, outcomes in RECORD.items())
    assert golden.environment().startswith(torch.backends.cpu.get_cpu_capability())
    assert os.environ.get("MKL_CBWR", "") in golden.environment()
