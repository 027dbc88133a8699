"""The stored accuracies of run folders as one table for papers and spreadsheets."""

from collections.abc import Sequence
from pathlib import Path

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.reports.rows import Rows
from unperturbed.results.report import names_of
from unperturbed.results.stored import read_run
from unperturbed.results.tables import accuracy_rows


@checked()
def accuracies(runs: Path | str | Sequence[Path | str], *, suite: str | None = None, threat: str | None = None) -> Rows:
    """Return the accuracies of all evaluations in run folders, a row each; `.text("latex")` has them as text.

    Args:
        runs: a run folder, or several.
        suite: only evaluations by this suite.
        threat: only evaluations under this threat, as text, such as "Linf:8/255".

    Raises:
        InputError: without runs, for a folder without a run, and if no evaluation is left.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    if not folders:
        raise InputError("There is no run: give one run folder or more, which `unperturbed train` makes.")
    outcomes = {
        name: [
            stored.outcome
            for stored in read_run(folder, name).evaluations
            if suite in (None, stored.outcome.suite) and threat in (None, stored.outcome.threat)
        ]
        for folder, name in zip(folders, names_of(folders), strict=True)
    }
    if not any(outcomes.values()):
        kind = " ".join(text for text in (suite and f"by {suite}", threat and f"under {threat}") if text)
        raise InputError(
            f"{', '.join(map(str, folders))}: there is no finished evaluation {kind}".rstrip()
            + f". To make one: unperturbed evaluate {folders[0]}"
        )
    return accuracy_rows(outcomes)
