"""The hub's client: names of repositories, and its errors in sentences."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from unperturbed.errors import InputError, RunError

SCHEME = "hf://"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def repository_of(text: str) -> str:
    """Return the name of a repository, "user/name", with or without `hf://`; raises InputError for another text."""
    name = text.removeprefix(SCHEME).rstrip("/")
    if not _NAME.fullmatch(name):
        raise InputError(f"{text!r} names no repository of the hub: give user/name, such as mary/mnist-robust.")
    return name


@contextmanager
def hub_errors(repository: str, unchanged: str) -> Iterator[None]:
    """Raise the errors of the hub's client in this block as sentences with a remedy.

    Args:
        repository: user/name.
        unchanged: a sentence on what a failure leaves.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:  # the errors depend on the HTTP library and the version of the hub's client
        raise _in_words(error, repository, unchanged) from error


def _in_words(error: BaseException, repository: str, unchanged: str) -> Exception:
    from huggingface_hub import constants, get_token

    chain = list(_chain(error))
    kinds = {kind.__name__ for cause in chain for kind in type(cause).__mro__}
    status = next((code for cause in chain if (code := _status(cause)) is not None), None)
    reason = _one_line(next((cause for cause in chain if _status(cause) is not None), chain[-1]))
    if "OfflineModeIsEnabled" in kinds:
        return InputError("HF_HUB_OFFLINE is set, so that the hub is not asked: unset it, and try again.")
    if "HFValidationError" in kinds:
        return InputError(f"{repository} is no name for a repository of the hub ({reason}): give user/name.")
    if "GatedRepoError" in kinds:
        page = f"{constants.ENDPOINT}/{repository}"
        return InputError(f"{repository} is gated: ask for access on {page}, then {LOGIN}.")
    if "RevisionNotFoundError" in kinds:
        return InputError(f"{repository} has no such revision ({reason}): give a branch, a tag or a commit of it.")
    if "RepositoryNotFoundError" in kinds or status == 404:
        reader = "this token can read" if get_token() else "can be read without a token"
        return InputError(
            f"The hub has no model repository {repository} that {reader}: check the spelling; for a private one, "
            f"{LOGIN} to a token of an account that may read it."
        )
    if status == 401:
        return InputError(f"The hub refused the token (401): {LOGIN} to a valid token. {unchanged}")
    if status == 403:
        return InputError(
            f"This token may not do that with {repository} (403: {reason}): take a token with the permission to write, "
            f"and a user or organisation that it belongs to. {unchanged}"
        )
    if status in (409, 412):
        return RunError(f"{repository} was changed by somebody else meanwhile ({status}). {unchanged} Try again.")
    if status is not None and 400 <= status < 500 and status != 429:
        return RunError(f"The hub refused the request ({status}: {reason}). {unchanged}")
    if status is not None:
        return RunError(f"The hub failed ({status}: {reason}). {unchanged} Try again later.")
    return RunError(
        f"The connection to {constants.ENDPOINT} failed or broke off ({reason}). {unchanged} Check the network, and "
        "try again."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
