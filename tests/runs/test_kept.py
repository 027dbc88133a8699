"""A file of values of one job: read by the same job alone, and only as it was written."""

from pathlib import Path

import pytest

from unperturbed.runs.kept import Kept


def test_the_same_job_reads_what_it_wrote_and_no_other_job_does(tmp_path: Path) -> None:
    file, identity = tmp_path / "plan.json", {"weights": "a", "seed": 0}
    kept = Kept(file, identity)
    assert kept.read() == {}
    kept.write(plan={"of": "its own"}, steps=3)
    assert Kept(file, dict(reversed(identity.items()))).read() == {"plan": {"of": "its own"}, "steps": 3}
    assert Kept(file, identity | {"seed": 1}).read() == {}
    assert Kept(file, {"weights": "a"}).read() == {}


def test_a_changed_file_is_read_by_nobody_and_without_a_file_nothing_is_kept(tmp_path: Path) -> None:
    file, identity = tmp_path / "plan.json", {"seed": 0}
    Kept(file, identity).write(steps=3)
    file.write_text(file.read_text().replace("3", "30", 1))
    assert Kept(file, identity).read() == {}
    nowhere = Kept(None, identity)
    nowhere.write(steps=3)
    assert nowhere.read() == {} and list(tmp_path.iterdir()) == [file]


def test_values_that_do_not_fit_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(tmp_path / "plan.json", {"seed": 0})
    assert kept.read_as(lambda values: values["steps"]) is None and not caplog.text
    kept.write(steps=3)
    assert kept.read_as(lambda values: int(values["steps"])) == 3
    assert kept.read_as(lambda values: values["plan"]) is None
    assert "plan.json holds values that do not fit ('plan')" in caplog.text
