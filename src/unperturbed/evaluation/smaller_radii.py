"""Examples that a stored evaluation at a smaller radius has broken, and so are broken at the larger one."""

from collections.abc import Iterator
from glob import escape
from pathlib import Path

from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.evaluation.carry import Carried, points_of
from unperturbed.evaluation.stored import NEEDED, read_summary, with_examples
from unperturbed.findings import Outcome
from unperturbed.runs.job import JOB
from unperturbed.runs.verify import read_sealed
from unperturbed.threat import Threat


def points_of_smaller_radii(outcome: Outcome, threat: Threat, split: Split, out: Path) -> Carried:
    """Return misclassified points at smaller radii of the same norm for unbroken examples of an outcome.

    They come from finished evaluations of the same network and examples by the same suite, in the folders in `out`, in
    the parent of `out`, and in its other folders, where commands and `evaluate_threats` write them.
    """
    stored = sorted(_stored(outcome, threat, out), key=lambda evaluation: _ball(evaluation[0]).eps)
    return points_of(stored, outcome, threat, split)


def _stored(outcome: Outcome, threat: Threat, out: Path) -> Iterator[tuple[Outcome, Path]]:
    """Yield those evaluations with their folders; damaged ones are skipped."""
    job = f"{escape(outcome.suite)}/{JOB}"
    for path in sorted({*out.glob(f"*/{job}"), *out.parent.glob(job), *out.parent.glob(f"*/{job}")}):
        folder, is_of = path.parent.parent, read_sealed(path).get("is_of", {})
        if "undescribed" in is_of or any(is_of.get(name) != outcome.environment[name] for name in NEEDED):
            continue
        try:
            stored = read_summary(folder / f"{outcome.suite}.json")
            ball = _ball(stored)
            if (ball.norm, ball.shares) == (threat.norm, threat.shares) and ball.eps < threat.eps:
                yield with_examples(folder / f"{outcome.suite}.json", stored), folder
        except InputError:
            continue


def _ball(outcome: Outcome) -> Threat:
    """Return the ball of an outcome's threat set, without its box."""
    return Threat.parse(outcome.threat.split(" ")[0], None)
