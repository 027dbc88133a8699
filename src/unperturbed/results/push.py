"""A run folder shared on the hub, in one commit with its model card."""

from collections.abc import Sequence
from pathlib import Path

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.hub.client import repository_of
from unperturbed.hub.commit import commit
from unperturbed.hub.files import CARD, is_shared, shared_files
from unperturbed.results.hub_card import hub_card
from unperturbed.results.stored import StoredRun, read_run
from unperturbed.runs.files import BEST, CONFIG
from unperturbed.training.run import Run


@checked()
def push(
    run: Run | Path | str,
    repository: str,
    *,
    license: str | None = None,
    tags: Sequence[str] = (),
    private: bool = False,
    message: str = "Upload a run of unperturbed",
) -> str:
    """Upload a run folder to a model repository of the Hugging Face hub, and return the address of the commit.

    Weights, the record, results of evaluations, curves, audits and diagnoses go there in one commit, with a model card
    that has the evaluations in the hub's metadata. Checkpoints and all other files stay here. The stored adversarial
    examples are among the files: they show the data. The repository is made if it does not exist; earlier results in
    it that the folder lacks are removed.

    Args:
        run: a run folder, or an open one.
        repository: user/name.
        license: of the weights, by the hub's short name, such as "mit".
        tags: further ones for the card.
        private: make a private repository.
        message: of the commit.

    Raises:
        InputError: if the folder holds no finished run, has damaged results or links, and if the hub refuses the token.
        RunError: if the upload fails; the repository is then as it was.
    """
    name = repository_of(repository)
    folder = run.folder if isinstance(run, Run) else Path(run)
    stored = read_run(folder, name.partition("/")[2])
    _check_whole(stored)
    card = hub_card(stored, name, license, tags)
    files: dict[str, Path | bytes] = {CARD: card.encode(), **shared_files(folder)}
    return commit(name, files, replaces=is_shared, message=message, private=private)


def _check_whole(run: StoredRun) -> None:
    """Raise InputError where the weights or the record are missing, or a result is damaged or unfinished."""
    for file in (CONFIG, BEST):
        if not (run.folder / file).is_file():
            raise InputError(f"{run.folder} has no {file}: only a run that has finished an epoch can be shared.")
    if run.damaged:
        raise InputError(
            f"{run.folder} has results that are damaged or unfinished: {' '.join(run.damaged)} Finish or remove them "
            "before the run is shared."
        )
