"""`--engine` and the options of a cluster: what they choose, and what they refuse before any work."""

import sys
from typing import Any

import pytest

from unperturbed.cli.engine import add_engine_options, engine_of
from unperturbed.cli.options import new_parser, parse
from unperturbed.engines.local import Local
from unperturbed.errors import InputError


def chosen(*words: str) -> Any:
    parser = new_parser("evaluate", "Measure.")
    add_engine_options(parser)
    return engine_of(parse(parser, words))


def test_the_engine_is_that_of_its_name_and_none_without_one() -> None:
    assert chosen() is None and chosen("--engine", "local") == Local()
    with pytest.raises(InputError, match="no engine 'rays'. Did you mean 'ray'"):
        chosen("--engine", "rays")


@pytest.mark.parametrize("words", [("--address", "auto"), ("--engine", "local", "--address", "auto")])
def test_options_of_a_cluster_are_refused_for_another_engine(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="--address is an option of --engine ray, but the engine is local"):
        chosen(*words)


def test_the_local_engine_divides_the_work_as_for_several_workers() -> None:
    assert chosen("--engine", "local", "--workers", "3") == Local(3)
    with pytest.raises(InputError, match="workers is 0, but must be at least 1"):
        chosen("--engine", "local", "--workers", "0")


def test_the_options_of_a_cluster_are_those_of_the_engine() -> None:
    pytest.importorskip("ray")
    engine = chosen("--engine", "ray", "--address", "auto", "--workers", "3", "--cpus-per-worker", "2")
    assert (engine.address, engine.workers, engine.threads, engine.gpus_per_worker) == ("auto", 3, 2, 0)
    with pytest.raises(InputError, match="cpus_per_worker is 0, but must be at least 1"):
        chosen("--engine", "ray", "--workers", "2", "--cpus-per-worker", "0")


def test_a_missing_library_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install unperturbed\[ray\]"):
        chosen("--engine", "ray", "--workers", "2")
