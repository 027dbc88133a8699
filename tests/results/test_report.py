"""The whole report: every section, one file without references, honest about what is doubtful or missing."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

import unperturbed as un
from support.reported import HOSTILE
from support.sealed import reseal
from support.toys import QUICK
from unperturbed.reports.document import (
    Alert,
    Document,
    Figures,
    LineChart,
    MatrixChart,
    Paragraph,
    Part,
    Pictures,
    Section,
    Table,
    Tiles,
)
from unperturbed.results.report import write_figures
from unperturbed.runs.verify import read_sealed, write_sealed

TITLES = [
    "Results", "Comparison", "Accuracy against eps", "Classes", "Adversarial examples", "Audit", "Training",
    "Learning curves", "Diagnosis", "Explanations", "Glossary",
]  # fmt: skip


def section(document: Document, title: str) -> Section:
    (found,) = (section for section in document.sections if section.title == title)
    return found


def blocks(document: Document, title: str, kind: type) -> list:
    return [block for part in section(document, title).parts for block in part.blocks if isinstance(block, kind)]


@pytest.fixture(scope="module")
def two(made: Path, tmp_path_factory: pytest.TempPathFactory) -> un.Report:
    return un.report([made / "a", made / "b"], tmp_path_factory.mktemp("page") / "report.html")


@pytest.mark.slow
def test_two_whole_runs_have_every_section(two: un.Report) -> None:
    assert [section.title for section in two.document.sections] == TITLES and two.damaged == ()
    assert all(
        [part.title for part in section(two.document, title).parts] == ["a", "b"] for title in ("Results", "Classes")
    )


def test_the_page_is_one_small_file_without_references(two: un.Report) -> None:
    page = two.page.read_text()
    assert len(page) < 8e6
    own = page.replace(get_plotlyjs(), "")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', own) and "default-src 'none'" in own
    assert HOSTILE not in page and "&lt;img src=x onerror=alert(1)&gt;" in own
    assert own.count("</script>") == own.count("<script")


def test_the_numbers_are_those_of_the_evaluation(two: un.Report, made: Path) -> None:
    outcome = json.loads((made / "a/evaluation/pgd.json").read_text())
    tiles = blocks(two.document, "Results", Tiles)[0].tiles
    assert [tile.value for tile in tiles] == [
        f"{outcome['clean_accuracy']:.1%}", f"{outcome['robust_accuracy']:.1%}", "25.0%",
    ]  # fmt: skip
    low, high = outcome["interval"]
    assert tiles[1].doubts == ("the audit says suspicious",)
    assert tiles[1].interval == f"{low:.1%} to {high:.1%}, n = 24"
    (table,) = [table for table in blocks(two.document, "Comparison", Table) if "all numbers" in table.title]
    other = json.loads((made / "b/evaluation/pgd.json").read_text())
    difference = 100 * (other["robust_accuracy"] - outcome["robust_accuracy"])
    assert [row[2] for row in table.rows if row[1] == "robust"] == [f"{difference:+.1f}"]


def test_the_confusion_under_attack_counts_every_example(two: un.Report) -> None:
    for matrix in blocks(two.document, "Classes", MatrixChart):
        assert sum(map(sum, matrix.counts)) == 24
    assert (
        sum(sum(row) - row[k] for m in blocks(two.document, "Classes", MatrixChart) for k, row in enumerate(m.counts))
        > 0
    )


def test_images_are_embedded_with_words(two: un.Report) -> None:
    for title in ("Adversarial examples", "Explanations"):
        grids = blocks(two.document, title, Pictures)
        pictures = [picture for grid in grids for _, row in grid.rows for picture in row if picture is not None]
        assert pictures and all(picture.png.startswith(b"\x89PNG") and picture.text for picture in pictures)


def test_diagnosis_and_audit_are_taken_in(two: un.Report) -> None:
    assert blocks(two.document, "Diagnosis", Figures)
    (evidence, _) = blocks(two.document, "Audit", Table)
    assert evidence.rows[0][:4] == ("steps", "fail", "3 of 32", "0")
    assert [alert.points for alert in blocks(two.document, "Audit", Alert)] == [
        ("weak suite: The suite misses examples. Remedy: Use more steps.",)
    ] * 2


def test_the_loss_along_both_axes_of_the_surface_is_drawn(run: Path) -> None:
    (chart,) = blocks(un.report(run).document, "Audit", LineChart)
    assert [line.y for line in chart.series] == [(2, 5, 8), (4, 5, 6)], "both go through the example in the middle"
    assert [line.x for line in chart.series] == [(-1, 0, 1)] * 2 and chart.text.startswith("mean of 4")


def test_a_doubted_accuracy_is_crossed_out_with_its_reason(run: Path) -> None:
    path = run / "evaluation/pgd.json"
    reseal(path, read_sealed(path) | {"doubts": ["the gradient is <b>0</b>"]})
    written = un.report(run)
    assert written.page == run / "report.html"
    page = written.page.read_text()
    assert 'class="tile doubtful"' in page and "the gradient is &lt;b&gt;0&lt;/b&gt;" in page


def test_an_undecided_audit_is_a_warning_and_crosses_nothing_out(run: Path) -> None:
    path = run / "audit.json"
    reseal(path, read_sealed(path) | {"verdict": "undecided", "causes": [], "explanations": []})
    document = un.report(run).document
    assert [tile.doubts for tile in blocks(document, "Results", Tiles)[0].tiles] == [(), (), ()]
    for title in ("Results", "Audit"):
        (alert,) = blocks(document, title, Alert)
        assert "found nothing, but checks that it needs were not run" in alert.points[0]


def test_a_bare_folder_makes_a_page_that_says_what_is_missing(run: Path) -> None:
    for piece in ("evaluation", "explanation"):
        shutil.rmtree(run / piece)
    for piece in ("config.yaml", "audit.json", "diagnosis-a.json", "metrics.jsonl"):
        (run / piece).unlink()
    written = un.report(run)
    assert [section.title for section in written.document.sections] == ["What is missing", "Glossary"]
    (table,) = blocks(written.document, "What is missing", Table)
    assert len(table.rows) == 5 and any("config.yaml" in text for text in written.damaged)


def test_missing_data_and_weights_are_reasons_not_failures(run: Path) -> None:
    (run / "best.safetensors").unlink()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"^data: .*$", "data: /nowhere/images", config, flags=re.MULTILINE))
    document = un.report(run).document
    assert "best.safetensors" in blocks(document, "Classes", Paragraph)[0].text
    assert "/nowhere/images" in blocks(document, "Adversarial examples", Paragraph)[0].text


def test_a_grid_that_leaves_its_folder_is_refused(run: Path) -> None:
    grid = {"title": "t", "columns": ["c"], "rows": [{"name": "r", "images": ["../config.yaml"]}]}
    (run / "explanation/gradients.json").write_text(json.dumps(grid))
    (paragraph,) = blocks(un.report(run).document, "Explanations", Paragraph)
    assert "does not lie in" in paragraph.text


@pytest.mark.slow
def test_runs_that_cannot_be_paired_say_why(run: Path, made: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "evaluation")
    document = un.report([run, made / "b"], tmp_path / "two.html").document
    assert "same suite" in blocks(document, "Comparison", Paragraph)[0].text


@pytest.mark.slow
def test_the_card_has_the_same_content_and_no_markup_from_names(two: un.Report, made: Path, tmp_path: Path) -> None:
    card = un.report(made / "a", tmp_path / "r.html", card=tmp_path / "card.md").card
    assert card is not None
    text = card.read_text()
    assert all(f"## {section.title}" in text for section in two.document.sections if section.title != "Comparison")
    fenced = re.sub(r"^(```+)\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<img" not in fenced and "&lt;img src=x onerror=alert\\(1\\)&gt;" in fenced


@pytest.mark.long
@pytest.mark.slow
def test_figures_are_written_in_three_formats_each(two: un.Report, tmp_path: Path) -> None:
    charts = [chart for _, chart in two.document.charts()]
    kinds = list({type(chart): chart for chart in charts}.values())
    document = Document("t", (), (Section("s", (Part("a", (*kinds, kinds[0])),)),))
    paths = write_figures(document, tmp_path / "figures")
    assert len(kinds) == 3 and len(paths) == len(set(paths)) == 3 * 4
    assert {path.suffix for path in paths} == {".svg", ".pdf", ".png"} and all(
        path.stat().st_size > 900 for path in paths
    )


def test_bad_input_is_refused_before_anything_is_written(made: Path, tmp_path: Path) -> None:
    for runs, word in (([], "no run"), ([made / "a", made / "a/"], "twice"), ([tmp_path], "no run")):
        with pytest.raises(un.InputError, match=word):
            un.report(runs, tmp_path / "x.html")
    with pytest.raises(un.InputError, match="HTML file"):
        un.report(made / "a", tmp_path)
    assert not (tmp_path / "x.html").exists()


PNG_BYTES = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("kind", ["another folder", "/dev/zero", "folder"])
def test_an_image_that_is_a_link_to_elsewhere_is_not_published(kind: str, run: Path, tmp_path: Path) -> None:
    """A stranger's folder may point to the reader's own pictures, and to a device that never ends."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG_BYTES + b"secret")
    image = next((run / "explanation").glob("*.png"))
    image.unlink()
    image.symlink_to(secret if kind == "another folder" else kind if kind == "/dev/zero" else tmp_path)
    written = un.report(run)
    assert base64.b64encode(secret.read_bytes())[:16].decode() not in written.page.read_text()
    assert "does not lie in" in written.page.read_text()


@pytest.mark.slow
def test_an_image_that_is_named_any_number_of_times_fills_no_page(run: Path) -> None:
    path = run / "explanation" / "gradients.json"
    grid = json.loads(path.read_text())
    path.write_text(json.dumps(grid | {"rows": grid["rows"] * 5000}))
    page = un.report(run).page
    assert "more than 2,000 in all" in page.read_text() and page.stat().st_size < 20e6


def test_values_of_other_types_leave_out_their_section_only(run: Path) -> None:
    write_sealed(run / "result.json", {"warnings": 7, "conclusions": {"a": [1]}})
    titles = [section.title for section in un.report(run).document.sections]
    assert "Left out: training" in titles and "Results" in titles


@pytest.mark.slow
def test_a_finding_of_other_types_is_damaged_though_its_checksum_is_right(run: Path) -> None:
    path = next(run.glob("diagnosis*.json"))
    content = read_sealed(path)
    for place, value in (("numbers", [{"name": ["a"], "value": 1.0, "n": 1}]), ("notes", [1]), ("title", None)):
        finding = {**content["findings"]["margins"]["finding"], place: value}
        write_sealed(path, {**content, "findings": {"margins": {"source": "x", "finding": finding}}})
        assert any("does not fit" in text for text in un.report(run).damaged), place


@pytest.mark.parametrize("suite", ["../../elsewhere", "/etc", "..", ""])
def test_the_name_of_a_suite_leads_out_of_no_folder(suite: str, run: Path) -> None:
    """The results of a suite lie in a folder of its name, which other functions write to and clear."""
    path = run / "evaluation" / "pgd.json"
    reseal(path, read_sealed(path) | {"suite": suite})
    assert any("no name of a suite" in text for text in un.report(run).damaged)
    with pytest.raises(un.InputError, match="a folder of this name"):
        un.Suite(suite, QUICK.attacks, "a note")
