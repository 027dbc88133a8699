"""Datasets of the Hugging Face hub: their Parquet files, fetched into the hub's own cache."""

import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import TypeVar

from unperturbed.data.forms.base import Form
from unperturbed.data.forms.parquet import REMEDY, TAKES, TEST, TRAIN, choose_files, find_parquet, load_parquet
from unperturbed.data.names import forms_in_words
from unperturbed.errors import InputError, RunError

SECONDS = 5.0
"""The time limit for the hub's answer."""

_REVISIONS = ("main", "refs/convert/parquet")
"""The revisions with a dataset's Parquet files: the original, and the hub's conversion of other formats."""

T = TypeVar("T")


def fetch(repository: str, config: str | None) -> Path:
    """Return the local folder with the Parquet files of a dataset, after downloading files that the cache lacks.

    The hub gets one request with a limit of a few seconds; without an answer, the cached copy is used. With
    HF_HUB_OFFLINE set, no request is made. Raises InputError if the cache has no copy either, and RunError if a
    download breaks off.
    """
    try:
        revision, files = _ask(repository)
    except _Unreachable as error:
        cached = _cached(repository, config)
        if cached is None:
            raise InputError(
                f"The Hugging Face hub cannot be reached for {repository} ({error}), and no complete copy is cached. "
                f"Without the hub, give {forms_in_words(without=HUB.example)}."
            ) from error
        return cached
    chosen = choose_files(files, repository, config)
    return _download(repository, revision, [*_patterns(config), *(str(p) for p in chosen.get(TRAIN[0], []))])


def copied(repository: str, config: str | None) -> Path:
    """Return the local folder with an earlier download of a dataset, without any request.

    Raises:
        InputError: if there is no complete copy.
    """
    copy = _cached(repository, config)
    if copy is None:
        raise InputError(
            f"The data {repository} are on the Hugging Face hub and not on this machine, and only a file names them: "
            f"nothing is downloaded for it. If you want that, give --data {repository} yourself, or --trust (in Python "
            "trust=True)."
        )
    return copy


class _Unreachable(Exception):
    """The hub gave no answer; the text is the reason in one line."""


def _ask(repository: str) -> tuple[str, list[PurePosixPath]]:
    """Return the revision that has Parquet files, and these files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    for revision in _REVISIONS:
        try:
            ask = partial(HfApi().dataset_info, repository, revision=revision, timeout=SECONDS)
            info = _within(SECONDS, ask)
        except GatedRepoError as error:
            page = f"https://huggingface.co/datasets/{repository}"
            raise InputError(f"{repository} is gated: ask for access on {page}, then run `hf auth login`.") from error
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise InputError(
                f"There is no folder {repository} here, and the Hugging Face hub has no dataset {repository} "
                "that can be read without logging in (`hf auth login`): check the spelling."
            ) from error
        except Exception as error:  # the errors depend on the HTTP library and the version of the hub's client
            raise _Unreachable(_one_line(error)) from error
        files = [PurePosixPath(s.rfilename) for s in info.siblings or [] if s.rfilename.endswith(".parquet")]
        if files:
            return revision, sorted(files)
    others = forms_in_words(without=HUB.example)
    raise InputError(f"{repository} has no Parquet files on the Hugging Face hub: download it, and give {others}.")


def _within(seconds: float, question: Callable[[], T]) -> T:
    """Return the answer, or raise TimeoutError: a name lookup can hang longer than the timeout of a request."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error


def _download(repository: str, revision: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise RunError(
            f"The download of {repository} broke off ({_one_line(error)}). Finished parts are kept: run the same "
            "command again to resume."
        ) from error


def _cached(repository: str, config: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    for revision in _REVISIONS:
        try:
            folder = Path(
                snapshot_download(
                    repository,
                    repo_type="dataset",
                    revision=revision,
                    allow_patterns=_patterns(config),
                    local_files_only=True,
                )
            )
        except OSError:
            continue
        if find_parquet(folder):
            return folder
    return None


def _patterns(config: str | None) -> list[str]:
    """Return the patterns of the required files, which also decide whether a cached copy is complete."""
    folder = f"{config}/" if config else ""
    return [f"{folder}*{split}*.parquet" for split in (*TRAIN, *TEST)]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


HUB: Form = Form(
    "a dataset of the Hugging Face hub",
    "a Hugging Face dataset id (owner/name)",
    fits=lambda place: re.fullmatch(r"[\w.-]+/[\w.-]+", place) is not None and not Path(place).exists(),
    load=lambda place, name, choice: load_parquet(fetch(place, choice.config), name, choice),
    takes=TAKES,
    remedy=REMEDY,
    load_copy=lambda place, name, choice: load_parquet(copied(place, choice.config), name, choice),
)
