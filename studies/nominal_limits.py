"""What a limit on the nominal loss costs and gains: methods beside each other, over seeds, as `sweep` left them.

A row a method: accuracies on clean inputs and after FGSM, after `pgd` as well, and after `standard` as well, each on
what the attacks before it left standing; means over the seeds, and the lowest and the highest of them. Under the table,
differences to one method, paired over seeds and examples.

    unperturbed sweep --data mnist --threat Linf:0.3 --over method=at,trades,dale --over seed=0,1,2 \
        --suite studies.nominal_limits:SUITE --examples 1000 --out runs/methods
    python -m studies.nominal_limits runs/methods/sweep.json ... [--beside trades]
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from studies.paired import interval, verdict
from torch import Tensor

from unperturbed.attacks.autoattack import STANDARD
from unperturbed.attacks.gradient import PGD_SUITE, GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.runs import read_jsonl

FGSM = GradientAttack("FGSM", cross_entropy, PGD(steps=1, step_size=1.0, random_start=False))
SUITE = Suite(
    "fgsm-pgd-standard",
    (FGSM, *PGD_SUITE.attacks, *STANDARD.attacks),
    "FGSM, pgd and AutoAttack, one after the other: an upper bound",
)
CLOSE = 0.005
"""How much less robust a method may be and still count as equally robust."""


def main() -> None:
    """Print the table and the differences."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("sweep", type=Path, nargs="+")
    options.add_argument("--beside", default="trades")
    given = options.parse_args()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for path in given.sweep:
        for run in json.loads(path.read_text())["runs"]:
            if run["status"] == "done":
                name = ", ".join(value for axis, value in run["values"].items() if axis != "seed")
                rows.setdefault(name or path.parent.name, []).append(run)
    print("| | clean | FGSM | and `pgd` | and `standard` | lowest, highest | nominal loss | dual | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, runs in rows.items():
        print(row(name, runs))
    clean, robust = ({name: standing(runs, attacked) for name, runs in rows.items()} for attacked in (False, True))
    for name in rows:
        if name != given.beside and len(rows[name]) == len(rows[given.beside]):
            print(beside(name, given.beside, clean, robust))


def row(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a row of the table."""
    steps = [accuracies(run) for run in runs]
    means = [f"{sum(each[k] for each in steps) / len(steps):.1%}" for k in range(4)]
    last = [each[3] for each in steps]
    ends = [read_jsonl(Path(run["run"]) / "metrics.jsonl")[-1] for run in runs]
    limited = [", ".join(f"{end[key]:.3g}" for end in ends if key in end) for key in ("nominal_loss", "dual")]
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return (
        f"| {name} | {' | '.join(means)} | {min(last):.1%}, {max(last):.1%} | {' | '.join(limited)} | {seconds:.0f} |"
    )


def accuracies(run: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the accuracy on clean inputs, after FGSM, after `pgd` and after `standard`."""
    after = [attack["robust_after"] for attack in run["evaluation"]["attacks"]]
    if len(after) != len(SUITE.attacks):
        raise SystemExit(f"{run['run']} was evaluated under {run['outcome']['suite']}: sweep with this file's SUITE.")
    return run["evaluation"]["clean_accuracy"], after[0], after[len(PGD_SUITE.attacks)], after[-1]


def standing(runs: Sequence[Mapping[str, Any]], attacked: bool) -> Tensor:
    """Return which examples each run gets right, as numbers: (seeds, examples)."""
    found = []
    for run in sorted(runs, key=lambda run: str(run["values"].get("seed"))):
        parts = sorted((Path(run["run"]) / "evaluation").glob(f"**/{SUITE.name}/part-*.parquet"))
        verdicts = [v for part in parts for v in pyarrow.parquet.read_table(part)["verdict"].to_pylist()]
        right = ("survived",) if attacked else ("survived", "broken")
        found.append(torch.tensor([each in right for each in verdicts], dtype=torch.float64))
    return torch.stack(found)


def beside(name: str, other: str, clean: Mapping[str, Tensor], robust: Mapping[str, Tensor]) -> str:
    """Return a sentence on both differences."""
    lost, gained = interval(robust[name] - robust[other]), interval(clean[name] - clean[other])
    texts = [f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]" for mean, low, high in (lost, gained)]
    close = verdict(lost[1] + CLOSE, lost[2] + CLOSE)
    return (
        f"{name} - {other}: robust {texts[0]}, no more than {CLOSE:.1%} lost: {close}; clean {texts[1]}, "
        f"higher: {verdict(*gained[1:])}"
    )


if __name__ == "__main__":
    main()
