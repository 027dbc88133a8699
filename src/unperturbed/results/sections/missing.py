"""Missing and unreadable pieces of a run folder."""

from collections.abc import Sequence

from unperturbed.reports.document import Alert, Block, Part, Section, Table, section
from unperturbed.results.stored import StoredRun


def missing(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run with missing pieces."""
    return section("What is missing", [Part(run.name if len(runs) > 1 else "", _blocks(run)) for run in runs])


def _blocks(run: StoredRun) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if run.damaged:
        blocks.append(Alert("These pieces cannot be read, or were changed, and are left out", run.damaged))
    if run.absent:
        rows = tuple(
            (noun.removeprefix("No "), command) for noun, _, command in (text.partition(": ") for text in run.absent)
        )
        blocks.append(Table("Results that were not measured", ("result", "how to get it"), rows))
    return tuple(blocks)
