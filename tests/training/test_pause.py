"""A run that pauses after an epoch ends as one that did not."""

from pathlib import Path

import pytest
from test_resume import at_run, everything, same

from unperturbed import runs
from unperturbed.errors import InputError


@pytest.mark.slow
def test_a_paused_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    at_run(tmp_path / "straight")
    for until in (1, 3):
        at_run(tmp_path / "paused", until=until, resume=until > 1)
        epochs = [line["epoch"] for line in runs.read_jsonl(tmp_path / "paused" / runs.METRICS)]
        assert epochs == list(range(1, until + 1))
        assert not (tmp_path / "paused" / runs.RESULT).exists() and not (tmp_path / "paused" / runs.MODEL).exists()
    at_run(tmp_path / "paused", until=2, resume=True)  # it is beyond that
    at_run(tmp_path / "paused", until=9, resume=True)
    assert same(everything(tmp_path / "straight"), everything(tmp_path / "paused"))
    assert (tmp_path / "paused" / runs.RESULT).exists()


def test_a_pause_without_a_folder_is_refused() -> None:
    with pytest.raises(InputError, match="until is 1, but a paused run is resumed from its folder"):
        at_run(None, until=1)  # type: ignore[arg-type]
