"""Files written to a repository of the hub in one commit."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.hub.client import LOGIN, hub_errors

UNCHANGED = "Nothing of the commit is in the repository."


def commit(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    replaces: Callable[[str], bool],
    message: str,
    private: bool = False,
) -> str:
    """Write files to a model repository in one commit, and return the commit's address.

    The repository is made if it does not exist. Either all files arrive, or the repository stays as it was.

    Args:
        repository: user/name.
        files: by their path in the repository, a local file or its content.
        replaces: whether a path of the repository that is not among the files is removed.
        message: of the commit.
        private: make a private repository.

    Raises:
        InputError: without a token, for one that the hub refuses, and where a private repository was asked for and it
            is public.
        RunError: if the upload fails.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if not get_token():
        raise InputError(f"The hub takes uploads with a token only: {LOGIN}.")
    api = HfApi(library_name="unperturbed")
    with hub_errors(repository, UNCHANGED), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.model_info(repository)
        if private and info.private is False:
            raise InputError(f"{repository} is public: make it private in its settings, or give another name.")
        present = [sibling.rfilename for sibling in info.siblings or ()]
        added = [CommitOperationAdd(path, content) for path, content in files.items()]
        removed = [CommitOperationDelete(path) for path in present if path not in files and replaces(path)]
        written = api.create_commit(repository, [*added, *removed], commit_message=message, parent_commit=info.sha)
    return str(written.commit_url)
