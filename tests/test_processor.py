"""The setting under which matrix products round rows alike: what fits a processor, and who may change it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unperturbed import processor
from unperturbed.processor import SETTING, processor_features, round_rows_alike, strict_branch, workers_round_rows_alike

SOURCE = Path(processor.__file__).parents[1]
XEON = {"avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "amx_tile"}


@pytest.mark.parametrize(
    ("features", "branch"),
    [
        (XEON, "AVX512,STRICT"),
        (XEON - {"avx512vl"}, "AVX2,STRICT"),  # a Xeon Phi has AVX-512 without what MKL's branch needs
        ({"avx2", "fma", "sse4_2"}, "AVX2,STRICT"),
        ({"avx2"}, None),
        ({"avx", "sse4_2"}, None),
        (set(), None),
    ],
)
def test_the_branch_is_one_that_the_processor_has(features: set[str], branch: str | None) -> None:
    assert strict_branch(features) == branch


def test_features_are_read_from_linux_and_empty_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t: other\n")
    assert processor_features(tmp_path / "cpuinfo") == {"fpu", "avx2", "fma"}
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert processor_features(tmp_path / "arm") == processor_features(tmp_path / "none") == set()


def run(code: str, **environment: str) -> str:
    """Return what a new process prints, which begins without the setting."""
    there = {name: value for name, value in os.environ.items() if name != SETTING} | {"PYTHONPATH": str(SOURCE)}
    call = [sys.executable, "-c", code]
    return subprocess.run(call, env=there | environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
def test_the_program_sets_it_before_torch_is_loaded_and_keeps_the_users() -> None:
    """The wrapper stands for the environment at the moment when torch is imported."""
    code = f"""
import builtins, os, sys
load = builtins.__import__
def watched(name, *rest, **more):
    if name == "torch":
        print(os.environ.get({SETTING!r}), file=sys.__stdout__, flush=True)
        os._exit(0)
    return load(name, *rest, **more)
builtins.__import__ = watched
from unperturbed.cli.main import main
main(["evaluate", "--data", "digits"])
"""
    assert run(code) == str(strict_branch(processor_features()))
    assert run(code, MKL_CBWR="AUTO") == "AUTO" and run(code, MKL_CBWR="") == ""


def test_run_as_a_file_it_prints_the_setting() -> None:
    printed = subprocess.run(
        [sys.executable, "-P", str(processor.__file__)], check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == (strict_branch(processor_features()) or "")


def test_workers_begin_with_it_and_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "processor_features", lambda: XEON)
    monkeypatch.delenv(SETTING, raising=False)
    with workers_round_rows_alike():
        assert os.environ[SETTING] == "AVX512,STRICT"
    assert SETTING not in os.environ
    monkeypatch.setenv(SETTING, "COMPATIBLE")
    with workers_round_rows_alike():
        assert os.environ[SETTING] == "COMPATIBLE"
    assert os.environ[SETTING] == "COMPATIBLE"


def test_once_torch_is_loaded_it_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have torch loaded, and MKL has read its environment."""
    monkeypatch.setattr(processor, "processor_features", lambda: XEON)
    monkeypatch.delenv(SETTING, raising=False)
    round_rows_alike()
    assert SETTING not in os.environ
