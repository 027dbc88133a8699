from pathlib import Path

import pytest

from unperturbed.errors import InputError
from unperturbed.studies.store import Store


def test_what_is_written_is_read_by_seed_and_question(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read("digits-at", 0, "accuracies") is None
    store.write("digits-at", 1, "accuracies", {"robust": [1.0, 0.0, None, float("nan")]})
    store.write("digits-at", 0, "accuracies", {"robust": [0.123456789]})
    assert store.read("digits-at", 1, "accuracies") == {"robust": [1, 0, None, None]}
    assert store.read("digits-at", 0, "accuracies") == {"robust": [0.12346]}
    assert store.read("digits-at", 0, "other") is None and store.read("digits-llr", 0, "accuracies") is None


def test_the_order_of_writing_does_not_change_the_file(tmp_path: Path) -> None:
    for folder, order in ((tmp_path / "a", (0, 1, 2)), (tmp_path / "b", (2, 0, 1))):
        for seed in order:
            Store(folder).write("run", seed, "q", {"robust": [float(seed)]})
    assert (tmp_path / "a/run.jsonl").read_bytes() == (tmp_path / "b/run.jsonl").read_bytes()


def test_a_second_value_replaces_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("run", 0, "q", {"robust": [0.0]})
    store.write("run", 0, "q", {"robust": [1.0]})
    assert store.read("run", 0, "q") == {"robust": [1]}
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("content", ["no json", "[1]", '{"seed": 0}', "{}"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"run\.jsonl is damaged .* delete it"):
        Store(tmp_path).read("run", 0, "q")
