"""Unions, certificates, random perturbations and transfer in a report: their numbers, and what contradicts them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import unperturbed as un
from support.sealed import reseal
from support.toys import QUICK, blobs, mlp
from unperturbed.evaluation.certificates import Certificates
from unperturbed.evaluation.evaluated import Evaluated
from unperturbed.evaluation.probable import Probable
from unperturbed.findings import Transfer
from unperturbed.reports.document import BarChart, Document, LineChart, Table
from unperturbed.results.report import document_of
from unperturbed.results.stored import read_run

LINF, L2 = un.Threat("Linf", 0.1), un.Threat("L2", 0.2)
TITLES = ("Several threats", "Certified accuracy", "Random perturbations", "Transfer")


@dataclass
class Measured:
    """A run folder, and the results as they were measured."""

    folder: Path
    union: Any
    certificates: Certificates
    probable: Probable
    transfer: Transfer


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("measured") / "a"
    model, data, place = mlp(6, 3), blobs(24), folder / "evaluation"
    outcomes = tuple(
        un.evaluate(model, data, threat, QUICK, out=place / name) for name, threat in (("linf", LINF), ("l2", L2))
    )
    evaluated = Evaluated((LINF, L2), outcomes, (None, None), None)
    evaluated.write(place, folder)
    return Measured(
        folder,
        evaluated.headline,
        un.certify(model, data, L2, 0.25, draws=40, out=place),
        un.probable_accuracy(model, data, LINF, (0.1, 0.5), draws=20, out=place),
        un.transfer({"a": model, "<b>": mlp(6, 3, seed=1)}, data, LINF, QUICK, out=folder / "transfer"),
    )


def blocks(document: Document, title: str, kind: type) -> list[Any]:
    (section,) = (section for section in document.sections if section.title == title)
    return [block for part in section.parts for block in part.blocks if isinstance(block, kind)]


@pytest.mark.long
@pytest.mark.slow
def test_every_measurement_has_its_section_with_its_numbers(measured: Measured) -> None:
    run = read_run(measured.folder, "a")
    assert len(run.damaged) == 1 and "config.yaml" in run.damaged[0]
    document = document_of([run])
    assert [section.title for section in document.sections if section.title in TITLES] == list(TITLES)

    (chart,) = blocks(document, "Several threats", BarChart)
    worst, linf = measured.union.robust_accuracy, measured.union.outcomes[0].robust_accuracy
    bars = {bar.name: (bar.value, bar.low, bar.high) for bar in chart.series[0].bars}
    assert bars["any of them"] == (worst.value, worst.low, worst.high) and bars["Linf:0.1"][0] == linf.value
    assert worst.value == min(value for value, _, _ in bars.values())

    (lines,) = blocks(document, "Certified accuracy", LineChart)
    certificates = measured.certificates
    assert lines.series[0].y == tuple(certificates.smoothed(eps).value for eps in certificates.radii)
    assert lines.series[1].y == tuple(certificates.network(eps).value for eps in certificates.radii)

    (chart,) = blocks(document, "Random perturbations", BarChart)
    assert [bar.value for bar in chart.series[0].bars][2:] == [
        share.value for share in measured.probable.accuracy.values()
    ]

    (table,) = blocks(document, "Transfer", Table)
    assert table.columns == ("points found on", "a", "<b>") and len(table.rows) == 4
    for row, shares in zip(table.rows[1:3], measured.transfer.accuracy, strict=True):
        assert [cell.split(" ")[0] for cell in row[1:]] == [f"{share.value:.1%}" for share in shares]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("evaluation/*union*.json", lambda value: value | {"robust_accuracy": 0.99}),
        ("evaluation/certify-*.json", lambda value: value["certified"][0].update(smoothed_accuracy=1.5) or value),
        ("evaluation/certify-*.json", lambda value: value["certified"][0].update(network_accuracy=1.5) or value),
        ("evaluation/probable.json", lambda value: value["probable"][0].update(probable_accuracy=1.5) or value),
        ("evaluation/probable.json", lambda value: value | {"mean_accuracy": 1.5}),
        ("transfer/transfer.json", lambda value: value | {"worst_accuracy": [1.5, 1.5]}),
        ("transfer/transfer.json", lambda value: value | {"accuracy": value["accuracy"][:1]}),
        ("transfer/transfer.json", lambda value: {}),
    ],
)
def test_a_summary_that_its_examples_contradict_is_named(
    measured: Measured, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    folder = Path(shutil.copytree(measured.folder, tmp_path / "a"))
    (path,) = folder.glob(file)
    reseal(path, change(json.loads(path.read_text())))
    run = read_run(folder, "a")
    assert any(path.name in text for text in run.damaged), run.damaged
    assert len([*run.unions, *run.certificates, *run.probables, *run.transfers]) == 3


def test_a_union_needs_all_its_evaluations(measured: Measured, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(measured.folder, tmp_path / "a"))
    shutil.rmtree(folder / "evaluation/l2")
    run = read_run(folder, "a")
    assert not run.unions and any("L2:0.2, which is missing" in text for text in run.damaged)


def test_a_matrix_next_to_the_run_belongs_to_it_by_its_weights(measured: Measured, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(measured.folder, tmp_path / "a"))
    shutil.move(folder / "transfer", tmp_path / "transfer")
    assert len(read_run(folder, "a").transfers) == 1
    path = tmp_path / "transfer/transfer.json"
    path.write_text(path.read_text().replace(measured.transfer.environment["weights"]["a"], "other"))
    assert read_run(folder, "a").transfers == []
