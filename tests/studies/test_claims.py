"""The studies of the package: complete, decidable from what they measure, and trainable at full scale."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unperturbed as un
from unperturbed.data.split import Data, array_split
from unperturbed.studies import measures
from unperturbed.studies.by_name import find_study, names
from unperturbed.studies.design import SCALES, Measure, Run, Study, Trained
from unperturbed.studies.rule import decide_all
from unperturbed.studies.settings import DIGITS
from unperturbed.studies.values import Values

STUDIES = [find_study(name) for name in names()]
QUANTITIES = {
    "accuracies": ("clean", "robust", "doubted"),
    "pgd-10": ("weak",),
    "linearity": ("gamma", "excess", "bounded"),
    "diagnosis": (*measures.WEN_VALUES, measures.SPREAD, measures.SCALED_SPREAD),
    "audit": ("fall after remedies", "obfuscated"),
    "alignment": measures.ALIGNED,
}
FOR_A_NETWORK = (measures.SPREAD, measures.SCALED_SPREAD, "fall after remedies", "obfuscated", "doubted")


def made_up(study: Study, seeds: int = 5, examples: int = 40) -> Values:
    """Return random values of everything that the study measures."""
    draw = torch.Generator().manual_seed(0)
    measured = {
        (network.name, quantity): torch.rand(
            seeds, 1 if quantity in FOR_A_NETWORK else examples, generator=draw, dtype=torch.float64
        ).round(decimals=0 if quantity in ("clean", "robust", "weak") else 4)
        for network in study.networks
        for measure in study.measures
        for quantity in QUANTITIES[measure.name]
    }
    seconds = {name: torch.rand(9, generator=draw, dtype=torch.float64) + 1 for name in study.timed}
    training = {network.name: torch.rand(seeds, generator=draw) + 1 for network in study.networks}
    return Values(measured, seconds, training)


def test_there_are_sixteen() -> None:
    counts = {"LLR": 3, "SCORPIO": 4, "DALE": 3, "WEN": 4, "OURS": 2}
    expected = {f"{family}-{number}" for family, count in counts.items() for number in range(1, count + 1)}
    assert set(names()) == expected


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_decides_its_claims_from_what_it_measures_and_draws_them(study: Study) -> None:
    values = made_up(study)
    verdicts = decide_all([(claim, values) for claim in study.claims])
    assert len(verdicts) == len(study.claims) > 0
    assert len({verdict.claim.sentence for verdict in verdicts}) == len(verdicts)
    assert all(str(verdict).startswith(verdict.claim.sentence) for verdict in verdicts)
    if study.draw is not None:
        assert study.draw(study.settings["small"][0], values).axes


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_has_three_scales_and_runs_that_differ(study: Study) -> None:
    assert tuple(study.settings) == SCALES and study.claim.endswith(".") and study.source
    for settings in study.settings.values():
        for setting in settings:
            runs = [Run(setting, network, method, 0) for network in study.networks for method in network.methods]
            assert len({run.key for run in runs}) == len(runs)
            assert pickle.loads(pickle.dumps(runs[0])).key == runs[0].key


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
def test_a_measure_has_its_quantities_for_every_example(name: str, tmp_path: Path) -> None:
    measure = next(value for value in vars(measures).values() if isinstance(value, Measure) and value.name == name)
    data = un.load_data("digits")
    assert data.test is not None
    setting = replace(DIGITS, suite="apgd-ce", test=20)
    run = Run(setting, STUDIES[0].networks[0], STUDIES[0].networks[0].methods[0], 0)
    trained = Trained(setting.network(data, 0), data.train[:200], data.test[:20], run, str(tmp_path))
    values = measure.take(trained)
    assert tuple(values) == QUANTITIES[name]
    assert {len(row) for name, row in values.items() if name not in FOR_A_NETWORK} <= {20}
    assert all(len(row) == 1 and row[0] is not None for name, row in values.items() if name in FOR_A_NETWORK)
    assert all(any(value is not None for value in row) for row in values.values())


FULL = {
    run.key: run
    for study in STUDIES
    for setting in study.settings["full"]
    for network in study.networks
    for run in [Run(setting, network, network.methods[0], 0)]
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("key", FULL)
def test_a_run_at_full_scale_takes_a_step(key: str) -> None:
    run = FULL[key]
    draw = torch.Generator().manual_seed(0)
    split = array_split(torch.rand(4, 3, 32, 32, generator=draw).numpy(), torch.arange(4).numpy())
    data = Data("cifar10", split, split, tuple(map(str, range(10))))
    recipe = replace(run.recipe, epochs=1, batch_size=4, validation=0.0, alarm="off")
    result = un.train(run.setting.network(data, 0), data, run.threat, run.method, recipe)
    assert result.epochs == 1
