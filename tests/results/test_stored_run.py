"""The contents of a run folder are verified, and all damaged or missing files are named."""

import json
import shutil
from pathlib import Path

import pytest

import unperturbed as un
from support.sealed import reseal
from support.toys import QUICK, blobs, mlp
from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.results.stored import norm_of, radius_of, read_run
from unperturbed.runs.verify import SEAL, write_sealed


def test_a_whole_run_is_read_without_a_complaint(run: Path) -> None:
    stored = read_run(run, "a")
    assert stored.damaged == () and stored.absent == ()
    assert stored.record is not None and len(stored.metrics) == 3 and stored.headline is not None
    assert stored.headline.outcome.n == 24 and stored.headline.outcome.doubts == ()
    (curve,) = stored.curves
    assert [share.value for eps, share in curve.points if eps in (0.1, 0.2)] == [
        entry["robust_accuracy"] for entry in json.loads(curve.path.read_text())["curve"]
    ]
    assert all(low.value >= high.value for (_, low), (_, high) in zip(curve.points, curve.points[1:], strict=False))


@pytest.mark.slow
def test_certificates_and_counts_of_draws_are_no_damaged_evaluations(run: Path) -> None:
    model, data, threat = mlp(6, 3), blobs(8), un.Threat("L2", 0.2)
    un.certify(model, data, threat, 0.25, draws=4, out=run / "evaluation")
    un.probable_accuracy(model, data, threat, (0.5,), draws=4, out=run / "evaluation")
    stored = read_run(run, "a")
    assert stored.damaged == () and len(stored.evaluations) == 1


@pytest.mark.slow
def test_attacks_on_a_sample_of_survivors_are_no_evaluations(run: Path) -> None:
    """They would give 100%, under the stronger suite."""
    strong = Suite("strong", (GradientAttack("strong", cross_entropy, PGD(steps=20)),), "a test")
    fast = Suite("quick", QUICK.attacks, "a test", gate=Gate(strong, share=0.1, least=4))
    outcome = un.evaluate(mlp(6, 3), blobs(24), un.Threat("Linf", 0.1), fast, out=run / "evaluation" / "gated")
    assert outcome.gate is not None and list(run.glob("evaluation/gated/quick/*/strong.json"))
    stored = read_run(run, "a")
    assert stored.damaged == () and {each.outcome.suite for each in stored.evaluations} == {QUICK.name, "quick"}


@pytest.mark.parametrize(
    ("piece", "content", "named"),
    [
        ("config.yaml", "threat: [", "config.yaml"),
        ("config.yaml", None, "config.yaml"),
        ("result.json", "{", "result.json"),
        ("audit.json", "[1]", "audit.json"),
        ("diagnosis-a.json", "{}", "diagnosis-a.json"),
        ("evaluation/pgd.json", "{}", "pgd.json"),
        ("evaluation/pgd.json", None, "interrupted"),
        ("evaluation/curve-Linf.json", "nonsense", "curve-Linf.json"),
        ("evaluation/curve-Linf/part-00000.parquet", "nonsense", "curve-Linf"),
    ],
)
def test_a_damaged_piece_is_named_and_the_rest_is_read(run: Path, piece: str, content: str | None, named: str) -> None:
    if content is None:
        (run / piece).unlink()
    else:
        (run / piece).write_text(content)
    stored = read_run(run, "a")
    assert any(named in text for text in stored.damaged), stored.damaged
    assert len(stored.metrics) == 3


def test_a_line_of_metrics_that_is_cut_off_is_named(run: Path) -> None:
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole[:-20])
    stored = read_run(run, "a")
    assert len(stored.metrics) == 2 and any("1 of 3 lines" in text for text in stored.damaged)


@pytest.mark.parametrize("change", ["number", "table"])
def test_an_accuracy_that_its_table_does_not_confirm_is_not_to_be_believed(run: Path, change: str) -> None:
    path = run / "evaluation/pgd.json"
    if change == "number":
        reseal(path, json.loads(path.read_text()) | {"robust_accuracy": 0.99})
    else:
        (run / "evaluation/pgd/part-00000.parquet").write_bytes(b"nonsense")
    stored = read_run(run, "a")
    assert stored.headline is not None and stored.headline.outcome.doubts


def test_a_curve_that_was_raised_by_hand_is_refused(run: Path) -> None:
    path = run / "evaluation/curve-Linf.json"
    content = json.loads(path.read_text())
    content["curve"][-1]["robust_accuracy"] += 1 / 24
    reseal(path, content)
    stored = read_run(run, "a")
    assert not stored.curves and any("it was changed" in text for text in stored.damaged)


@pytest.mark.slow
def test_the_headline_is_under_the_threat_of_training(run: Path) -> None:
    model, data = un.load_run(run), un.load_data(str(read_run(run, "a").record.data))  # type: ignore[union-attr]
    un.evaluate(model, data, un.Threat("Linf", 0.01), QUICK, out=run / "evaluation/other")
    stored = read_run(run, "a")
    assert len(stored.evaluations) == 2 and stored.headline is not None and stored.headline.radius == 0.1


@pytest.mark.slow
def test_a_checked_suite_comes_before_a_longer_one_without_a_check(run: Path) -> None:
    """The check has 2,001 passes for a sampled survivor, the longer suite 401; all of 2,001 come before a sample."""
    model, data = un.load_run(run), un.load_data(str(read_run(run, "a").record.data))  # type: ignore[union-attr]
    climb = GradientAttack("climb", cross_entropy, PGD(steps=1))
    full = Suite("full", (GradientAttack("full", cross_entropy, PGD(steps=2000)),), "a test")
    checked = Suite("checked", (climb,), "a test", gate=Gate(full, least=2))
    longer = Suite("longer", (GradientAttack("longer", cross_entropy, PGD(steps=400)),), "a test")
    ranked = []
    for suite in (longer, checked, full):
        un.evaluate(model, data.test[:12], un.Threat("Linf", 0.001), suite, out=run / "evaluation")
        ranked.append([one.outcome.suite for one in read_run(run, "a").evaluations if one.outcome.n == 12])
    assert ranked == [["longer"], ["checked", "longer"], ["full", "checked", "longer"]]


@pytest.mark.slow
def test_the_page_says_what_a_check_found(run: Path) -> None:
    model, data = un.load_run(run), un.load_data(str(read_run(run, "a").record.data))  # type: ignore[union-attr]
    full = Suite("full", (GradientAttack("full", cross_entropy, PGD(steps=4000)),), "a test")
    idle = GradientAttack("idle", lambda logits, y: logits.sum(1) * 0, PGD(steps=1, random_start=False))
    suite = Suite("checked", (idle,), "a test", gate=Gate(full, least=2))
    outcome = un.evaluate(model, data, un.Threat("Linf", 0.1), suite, out=run / "evaluation")
    assert outcome.gate is not None and f"Suite checked: a test. Here {outcome.gate}" in un.report(run).page.read_text()


@pytest.mark.slow
def test_the_headline_is_on_the_test_data_of_the_run(run: Path) -> None:
    """A stronger suite on other data does not replace it, and without it the report says so."""
    strong = Suite("strong", (GradientAttack("strong", cross_entropy, PGD(steps=60), restarts=3),), "a test")
    other = un.load_data(str(read_run(run, "a").record.data)).train  # type: ignore[union-attr]
    un.evaluate(un.load_run(run), other, un.Threat("Linf", 0.1), strong, out=run / "evaluation/other-data")
    stored = read_run(run, "a")
    assert [(one.outcome.suite, one.is_own) for one in stored.evaluations] == [("pgd", True), ("strong", False)]
    shutil.rmtree(run / "evaluation/pgd")
    (run / "evaluation/pgd.json").unlink()
    left = read_run(run, "a")
    assert left.headline is not None and not left.headline.is_own
    assert "in the folder other-data" in un.report(run).page.read_text()


@pytest.mark.parametrize("content", [None, "file"])
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    place = tmp_path / "x"
    if content is None:
        place.mkdir()
    else:
        place.write_text(content)
    with pytest.raises(un.InputError, match="unperturbed train"):
        read_run(place, "x")


def test_norm_and_radius_of_a_threat_in_words() -> None:
    assert radius_of("Linf:8/255 without bounds") == 8 / 255 and norm_of("L2:0.5 within [0, 2]") == "L2"
    assert radius_of("Linf:0.1") == 0.1 and radius_of("nonsense") != radius_of("nonsense")


def test_the_median_distance_is_that_of_the_table(run: Path) -> None:
    path, before = run / "evaluation/curve-Linf.json", read_run(run, "a").curves[0].median
    content = json.loads(path.read_text())
    assert content["quantiles"]["0.5"] == before
    content["quantiles"]["0.5"] = 9.0
    reseal(path, content)
    assert read_run(run, "a").curves[0].median == before


def test_a_curve_of_another_threat_than_its_job_is_refused(run: Path) -> None:
    path = run / "evaluation/curve-Linf.json"
    content = json.loads(path.read_text())
    reseal(path, content | {"threat": "Linf:0.9"})
    stored = read_run(run, "a")
    assert not stored.curves and any("says threat 'Linf:0.9'" in text for text in stored.damaged)


@pytest.mark.parametrize("piece", ["result.json", "audit.json"])
def test_a_number_changed_by_hand_is_not_reported(run: Path, piece: str) -> None:
    path = run / piece
    write_sealed(path, {"seconds": 1.5, "headline": {"value": 0.25}})
    sealed = read_run(run, "a")
    assert not sealed.damaged and {"seconds": 1.5, "headline": {"value": 0.25}} in (sealed.result, sealed.audit)
    path.write_text(path.read_text().replace("0.25", "0.65"))
    assert any(f"{piece} was changed after it was written" in text for text in read_run(run, "a").damaged)


@pytest.mark.parametrize("piece", ["evaluation/pgd.json", "evaluation/curve-Linf.json"])
def test_warnings_deleted_by_hand_are_missed(run: Path, piece: str) -> None:
    path = run / piece
    content = json.loads(path.read_text())
    for change in (content | {"warnings": []}, {name: content[name] for name in content if name != SEAL}):
        path.write_text(json.dumps(change | {"note": "a better one"}))
        stored = read_run(run, "a")
        assert len(stored.evaluations) + len(stored.curves) == 1
        assert any(path.name in text and "repeat the command" in text for text in stored.damaged)


def test_other_files_of_the_user_in_the_folder_of_results_are_left_alone(run: Path) -> None:
    (run / "evaluation/notes.json").write_text('{"day": "Monday"}')
    assert read_run(run, "a").damaged == ()
