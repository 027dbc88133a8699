"""A job resumes what it should not, or refuses what it should resume."""

from pathlib import Path
from typing import Any

import pytest

from unperturbed.errors import InputError
from unperturbed.runs.job import JOB, Job
from unperturbed.runs.verify import read_sealed


def settings(**changes: Any) -> dict[str, Any]:
    return {"is_of": {"weights": "w", "network": "n", "suite": "pgd", "attacks": "a"} | changes, "batch_size": 16}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "job", "evaluation")


def never() -> None:
    raise AssertionError("nothing is to be removed")


def test_the_same_identity_resumes_with_the_settings_that_it_began_with(job: Job) -> None:
    first = job.claim(settings(), False, lambda: None)
    assert job.claim({**settings(), "batch_size": 8}, False, never) == first
    assert job.join({**settings(), "batch_size": 4}) == first == read_sealed(job.folder / JOB)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "other"}, "weights was w, now other"),
        ({"suite": "standard", "attacks": "b"}, r"\(suite was pgd, now standard\)"),
        ({"weights": "v" * 70}, f"now {'v' * 16}\\.\\.\\."),
        ({"weights": "other", "network": "m"}, "weights was w, now other; network was n, now m"),
    ],
)
def test_another_identity_is_refused_in_words_and_may_overwrite(job: Job, change: dict[str, str], words: str) -> None:
    job.claim(settings(), False, lambda: None)
    for call in (lambda: job.claim(settings(**change), False, never), lambda: job.join(settings(**change))):
        with pytest.raises(InputError, match=f"another evaluation.*{words}.*--overwrite"):
            call()
    removed = list[str]()
    assert job.claim(settings(**change), True, lambda: removed.append("all")) == settings(**change) and removed


def test_what_only_computes_something_else_begins_anew_and_says_so(job: Job) -> None:
    assert not job.is_outdated(settings())
    job.claim(settings(), False, lambda: None)
    assert job.is_outdated(settings(network="edited")) and not job.is_outdated(settings(weights="other", network="m"))
    removed = list[str]()
    job.claim(settings(network="edited"), False, lambda: removed.append("all"))
    assert removed == ["all"] and job.join(settings(network="edited"))


def test_what_cannot_be_described_begins_anew_each_time(job: Job) -> None:
    removed = list[str]()
    for _ in range(2):
        job.claim(settings(undescribed=["a handle"]), False, lambda: removed.append("all"))
    assert removed == ["all", "all"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"is_of": {"weights": "w"}}', b"\xff"])
def test_a_damaged_job_is_refused_and_may_be_overwritten(job: Job, content: bytes) -> None:
    job.claim(settings(), False, lambda: None)
    assert job.folder is not None
    (job.folder / JOB).write_bytes(content)
    with pytest.raises(InputError, match="damaged|was None"):
        job.claim(settings(), False, never)
    assert job.claim(settings(), True, lambda: None) == settings()


def test_a_sealed_job_that_was_changed_by_hand_is_damaged(job: Job) -> None:
    job.claim(settings(), False, lambda: None)
    assert job.folder is not None
    path = job.folder / JOB
    path.write_text(path.read_text().replace('"batch_size": 16', '"batch_size": 1024'))
    with pytest.raises(InputError, match="damaged"):
        job.claim(settings(), False, never)


def test_without_a_folder_nothing_is_stored_or_locked() -> None:
    job = Job(None)
    with job.alone():
        assert job.claim(settings(), False, never) == job.join(settings()) == settings()
    assert not job.is_outdated(settings())
