"""Results on the Python prompt."""

from typing import Any

import pytest

from unperturbed.evaluation.certificates import Certificates
from unperturbed.evaluation.comparison import Difference, Pair, PairedComparison
from unperturbed.evaluation.corruptions import UnderCorruptions
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.probable import Probable
from unperturbed.evaluation.quantize import Quantised
from unperturbed.evaluation.union import Union
from unperturbed.examinations.preflight import Checkup
from unperturbed.findings import Interval, Outcome, Result, Shown, Transfer, Verdict
from unperturbed.weights.files import KeyReport


def _results() -> list[Shown]:
    """Return results with a table of 10,000 examples, as a Python prompt shows them."""
    share, n = Interval(0.5, 0.4, 0.6, 10_000), 10_000
    ids = {name: list(range(n)) for name in ("id", "label", "distance", "doubt", "rounding", "radius", "prediction")}
    measured: dict[str, Any] = {"threat": "Linf:0.1", "n": n, "clean_accuracy": share, "seconds": 1.0, "warnings": ()}
    measured |= {"environment": {}, "examples": ids | {"proven": [0.0] * n}}
    counts: dict[Verdict, int] = {"misclassified": 0, "broken": n, "survived": 0, "unknown": 0}
    suite: dict[str, Any] = {"suite": "pgd", "note": "a note"}
    outcome = Outcome(**measured, **suite, robust_accuracy=share, counts=counts, attacks=(), ties=0, unverified=0)
    several = measured | {"clean_accuracy": (share, share)}
    vote: dict[str, Any] = {"sigma": 0.1, "draws": 9, "selection_draws": 9, "alpha": 0.01, "unproven": "", "doubts": ()}
    radii = tuple(0.1 * k for k in range(100))
    row = Difference(0.1, 0.0, 0.2)
    return [
        outcome,
        Transfer(**several, **suite, names=("a", "b"), accuracy=((share, share), (share, share)), worst=(share, share)),
        Union(**measured, outcomes=(outcome,), robust_accuracy=share, counts=counts),
        Probable(**measured, note="n", draws=9, mean_accuracy=share, accuracy={0.1: share}, unknown={0.1: 0}),
        UnderCorruptions(**measured, note="n", accuracy={"fog": (share,) * 5}, mean_accuracy=share),
        Distances(**measured, **suite, eps=0.1, radii=(0.1,), counts=counts, searches=()),
        Certificates(**measured, **vote, note="n", radii=radii, counts={"correct": n}),
        Quantised(n, counts, share, ids),
        PairedComparison("Linf:0.1", "pgd", (Pair(("a", "b"), 1, n, row, row, (), tuple(range(n)), ()),)),
        KeyReport(tuple(f"layer.{k}" for k in range(n)), source="a file"),
        Checkup((), {"inputs": list(range(n))}, 1.0),
    ]


@pytest.mark.parametrize("result", _results(), ids=lambda result: type(result).__name__)
def test_on_the_prompt_a_result_is_its_headline(result: Shown) -> None:
    """The table of examples would fill the screen."""
    text = repr(result)
    assert text == f"{type(result).__name__}({result})" and len(text) < 600 and "\n" not in text
    if isinstance(result, Result):
        assert "50.0% [40.0%, 60.0%]" in text
