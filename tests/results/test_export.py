"""Results for other programs: adversarial sets that load without pickle and break the network, sheets, and rows."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unperturbed as un
from support.reported import HOSTILE, OTHER
from support.toys import QUICK
from unperturbed.cli.main import main
from unperturbed.evaluation import accuracy
from unperturbed.results.stored import read_run
from unperturbed.results.tables import difference_rows
from unperturbed.threat import Threat


def test_an_adversarial_set_loads_without_pickle_and_breaks_the_network(run: Path, tmp_path: Path) -> None:
    un.adversarial_set(run).save(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as file:
        arrays = dict(file)
    stored = read_run(run, "a").headline
    assert stored is not None
    table = stored.outcome.examples
    broken = [row for row, verdict in enumerate(table["verdict"]) if verdict == "broken"]
    assert arrays["ids"].tolist() == sorted(table["id"][row] for row in broken) and len(broken) > 1
    x, z = torch.tensor(arrays["inputs"]), torch.tensor(arrays["adversarial"])
    assert Threat("Linf", float(arrays["eps"])).contains(x, z).all() and float(arrays["eps"]) == 0.1
    model, labels = un.load_run(run), torch.tensor(arrays["labels"])
    with torch.no_grad():
        assert (model(x).argmax(1) == labels).all() and (model(z).argmax(1) != labels).all()
        assert model(z).argmax(1).tolist() == arrays["predictions"].tolist()
    test = un.load_data(str(un.Run.open(run).record.data)).test
    assert test is not None and torch.equal(test.inputs(torch.tensor(arrays["ids"])).float(), x)
    assert arrays["class_names"].tolist() == [HOSTILE, OTHER.replace("/", "\u2044")]
    assert str(arrays["threat"]) == "Linf:0.1" and str(arrays["suite"]) == "pgd"


def test_the_first_examples_of_a_set(run: Path) -> None:
    whole, part = un.adversarial_set(run), un.adversarial_set(run, examples=2)
    assert part.ids.tolist() == whole.ids.tolist()[:2]
    assert np.array_equal(part.adversarial, whole.adversarial[:2]) and np.array_equal(part.inputs, whole.inputs[:2])
    for wrong in (0, -1):
        with pytest.raises(un.InputError, match=f"examples is {wrong}"):
            un.adversarial_set(run, examples=wrong)


@pytest.mark.long
@pytest.mark.slow
def test_a_sheet_shows_the_original_and_the_adversarial_input(run: Path, tmp_path: Path) -> None:
    examples = un.adversarial_set(run)
    rows = (0, len(examples.ids) - 1)
    examples.sheet(tmp_path / "sheet.png", rows)
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    for row in rows:
        for image in (examples.inputs[row], examples.adversarial[row]):
            grey = np.round(image[0] * 255).astype(np.uint8)
            assert {tuple([level] * 3) for level in grey.flatten().tolist()} <= set(map(tuple, picture.reshape(-1, 3)))
    with pytest.raises(un.InputError, match="ends in"):
        examples.sheet(tmp_path / "sheet.gif")
    with pytest.raises(un.InputError, match="ends in .npz"):
        examples.save(tmp_path / "set.zip")


def test_what_gives_no_adversarial_set_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(un.InputError, match="holds no evaluation by standard under L2:1 .pgd under Linf:0.1."):
        un.adversarial_set(run, suite="standard", threat="L2:1")
    part = run / "evaluation/pgd/part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-4])
    with pytest.raises(un.InputError, match="pgd.json gives no adversarial set"):
        un.adversarial_set(run)


def test_other_data_are_not_taken_for_the_originals(run: Path, tmp_path: Path) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("/images\n", "/elsewhere\n"))
    with pytest.raises(un.InputError, match="the data are not at .* give their place: --data"):
        un.adversarial_set(run)


@pytest.mark.slow
def test_the_originals_are_read_from_another_place_if_they_are_the_same(run: Path, tmp_path: Path) -> None:
    expected = un.adversarial_set(run)
    record = un.Run.open(run).record
    assert record is not None and record.data is not None
    moved = Path(shutil.copytree(record.data, tmp_path / "moved"))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("/images\n", "/elsewhere\n"))
    assert np.array_equal(un.adversarial_set(run, data=str(moved)).inputs, expected.inputs)
    for image in moved.glob("test/*/*.png"):
        Image.open(image).point(lambda value: 255 - value).save(image)
    with pytest.raises(un.InputError, match="the data have changed"):
        un.adversarial_set(run, data=str(moved))


@pytest.mark.slow
def test_the_rows_are_the_stored_accuracies_with_their_doubts(run: Path) -> None:
    stored = read_run(run, "a").headline
    assert stored is not None
    (row,) = csv.DictReader(io.StringIO(un.accuracies(run).text("csv")))
    outcome = stored.outcome
    assert (row["network"], row["threat"], row["suite"], row["n"]) == ("a", "Linf:0.1", "pgd", "24")
    assert float(row["robust accuracy"]) == outcome.robust_accuracy.value
    assert float(row["robust accuracy, low"]) == outcome.robust_accuracy.low
    assert "not to be believed" not in row
    table = run / "evaluation/pgd/part-00000.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    (row,) = csv.DictReader(io.StringIO(un.accuracies([run]).text("csv")))
    assert "table of examples" in row["not to be believed"]
    with pytest.raises(un.InputError, match="no finished evaluation by square"):
        un.accuracies(run, suite="square")


def test_differences_between_runs_are_rows(made: Path) -> None:
    comparison = un.compare_runs([made / "a", made / "b"])
    (row,) = csv.DictReader(io.StringIO(difference_rows(comparison).text("csv")))
    (pair,) = comparison.pairs
    assert row["difference"] == f"{made / 'b'} less {made / 'a'}"
    assert float(row["robust accuracy"]) == pair.robust.value and float(row["clean accuracy"]) == pair.clean.value
    assert float(row["McNemar's p, robust"]) == pair.robust.p


@pytest.mark.long
@pytest.mark.slow
def test_the_command_exports_all_of_it(
    run: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", "a", "--adversarial", "set.npz", "--sheet", "sheet.png", "--format", "latex", "--json"]
    assert main([*words, "--examples", "3"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["table"].startswith(r"\begin{tabular}") and value["examples"] == 3
    assert len(np.load(value["adversarial"])["ids"]) == 3 and Path(value["sheet"]).is_file()
    assert main(["export", "a", str(made / "b"), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.count("\n") == 4
    assert main(["compare", "a", str(made / "b"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("difference,threat,suite,n,clean accuracy")
    for wrong in (["export", "a"], ["export", "a", str(made / "b"), "--sheet", "x.png"], ["export", "--format", "csv"]):
        assert main(wrong) == 2
    assert main(["export", "a", "--format", "word"]) == 2


def test_an_evaluation_is_printed_as_rows_with_the_worst_case_last(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(accuracy.SUITES, "fast", QUICK)
    monkeypatch.chdir(run.parent)
    assert main(["evaluate", "a", "--threat", "Linf:0.1,L2:0.5", "--format", "csv"]) == 0
    first, second, worst = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert first["threat"] == "Linf:0.1" and second["threat"] == "L2:0.5" and first["network"] == "a"
    assert all(row["suite"] == "pgd" and row["n"] == "24" for row in (first, second, worst))
    least = min(float(row["robust accuracy"]) for row in (first, second))
    assert float(worst["robust accuracy"]) <= least and worst["threat"] not in (first["threat"], second["threat"])
