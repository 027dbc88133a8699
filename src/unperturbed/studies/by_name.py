"""The studies of the package, found by file."""

from unperturbed.catalogue import listing
from unperturbed.errors import InputError, hint
from unperturbed.imports import OWN, follow
from unperturbed.studies.design import Study

FOLDER = "studies/claims"


def names() -> tuple[str, ...]:
    """Return the names of all studies, such as LLR-1, sorted."""
    return tuple(sorted(name.upper() for name in listing(FOLDER)))


def find_study(name: str) -> Study:
    """Return the study of a name, in capital or small letters.

    Raises:
        InputError: for an unknown name, with the nearest.
    """
    entries = listing(FOLDER)
    if name.lower() not in entries:
        raise InputError(f"There is no study {name!r}. {hint(name.upper(), names())}")
    study = follow(entries[name.lower()].path, "study", OWN)
    assert isinstance(study, Study)
    return study
