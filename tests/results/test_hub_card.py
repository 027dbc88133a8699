"""The model card for the hub: its metadata, as the hub's library reads them, and what is left out of them."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard

from support.reported import HOSTILE
from support.sealed import reseal
from unperturbed.results.hub_card import hub_card
from unperturbed.results.stored import StoredRun, read_run

SOUND = {"verdict": "no sign of obfuscation", "causes": [], "checks": []}


def stored(folder: Path, audit: Any = SOUND) -> StoredRun:
    reseal(folder / "audit.json", audit)
    return read_run(folder, "robust")


def results(text: str) -> list[EvalResult]:
    card = ModelCard(text)
    return list(card.data.eval_results or ())


def test_the_card_has_the_confusion_under_attack_and_commands_on_a_pulled_run(run: Path) -> None:
    text = hub_card(stored(run), "mary/robust")
    assert "Confusion under attack (pgd, Linf:0.1)" in text.replace("\\", "") and "left out" not in text
    assert "unperturbed train --config run/config.yaml --out run-again" in text and str(run) not in text


def test_the_metadata_are_the_evaluations(run: Path) -> None:
    of = stored(run)
    card = ModelCard(hub_card(of, "mary/robust", "mit", ["small"]))
    assert card.data["library_name"] == "unperturbed" and card.data.license == "mit"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.tags == ["unperturbed", "adversarial-robustness", "small"]
    assert card.data.model_name == "robust"
    clean, robust = card.data.eval_results
    assert of.headline is not None
    outcome = of.headline.outcome
    assert clean.metric_name == "Clean accuracy" and clean.metric_value == round(outcome.clean_accuracy.value, 6)
    assert robust.metric_value == round(outcome.robust_accuracy.value, 6)
    assert robust.metric_name == "Robust accuracy under Linf:0.1, suite pgd (upper bound)"
    assert robust.metric_args["threat"] == "Linf:0.1" and robust.metric_args["n"] == 24
    assert robust.metric_args["interval_95"] == [
        round(end, 6) for end in (outcome.robust_accuracy.low, outcome.robust_accuracy.high)
    ]


def test_what_is_doubted_is_said_and_is_not_in_the_metadata(run: Path) -> None:
    suspected = hub_card(stored(run, {**SOUND, "verdict": "obfuscated"}), "mary/robust")
    assert [result.metric_name for result in results(suspected)] == ["Clean accuracy"]
    assert "not to be believed" in suspected
    table = run / "evaluation/pgd/part-00000.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    changed = hub_card(stored(run), "mary/robust")
    assert results(changed) == [] and "not to be believed" in changed


def test_the_text_is_the_report_without_markup_from_data_and_without_commands_for_this_machine(run: Path) -> None:
    text = hub_card(stored(run), "mary/robust")
    body = ModelCard(text).text
    assert "# Robustness of robust" in body and "## Results" in body and "unperturbed pull mary/robust" in body
    assert HOSTILE not in body.partition("config.yaml")[0] and "No learning curves" not in body
    commands = [line for line in body.splitlines() if line.startswith("unperturbed ")]
    assert len(commands) == 4 and str(run) not in text and "unperturbed train --config run/config.yaml" in text
    assert "What is missing" not in text and "Adversarial examples" not in text


@pytest.mark.parametrize(
    ("data", "identity"), [("mnist", "ylecun/mnist"), ("owner/pets", "owner/pets"), ("/a/folder", None)]
)
def test_data_of_the_hub_are_named_as_there(run: Path, data: str, identity: str | None) -> None:
    config = run / "config.yaml"
    config.write_text("".join(f"data: {data}\n" if line.startswith("data:") else line + "\n"
                              for line in config.read_text().splitlines()))  # fmt: skip
    card = ModelCard(hub_card(stored(run), "mary/robust"))
    assert card.data.get("datasets") == (None if identity is None else [identity])
