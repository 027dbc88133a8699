"""The costs and gains of a limit on the nominal loss: methods compared over seeds, from the results of `sweep`.

A row a method: accuracies on clean inputs and after FGSM, after `pgd` as well, and after `standard` as well, each on
what the attacks before it left standing; means over the seeds, and the lowest and the highest of them. Under the table,
differences to one method, paired over the seeds that both have and over examples.

    unperturbed sweep --data mnist --threat Linf:0.3 --over method=at,trades,dale --over seed=0,1,2 \
        --suite studies.nominal_limits:SUITE --examples 1000 --out runs/methods
    python -m studies.nominal_limits runs/methods/sweep.json ... [--beside trades] [--keep runs.jsonl]

What --keep writes has each run's figures and verdicts, and is read like a sweep: runs may come from several machines.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from torch import Tensor

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.runs import read_jsonl, write_jsonl
from unperturbed.statistics.paired import interval, verdict
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.pgd import PGD_SUITE

FGSM = GradientAttack("FGSM", cross_entropy, PGD(steps=1, step_size=1.0, random_start=False))
SUITE = Suite(
    "fgsm-pgd-standard",
    (FGSM, *PGD_SUITE.attacks, *STANDARD.attacks),
    "FGSM, pgd and AutoAttack, one after the other: an upper bound",
)
CLOSE = 0.005
"""The largest loss of robust accuracy that counts as equally robust."""


@dataclass(frozen=True)
class Trained:
    """A run and its verdicts.

    Attributes:
        name: of the method, or of the options that were swept over; of the sweep's folder, where that is seeds alone.
        seed: of the run.
        accuracies: on clean inputs, after FGSM, after `pgd` and after `standard`.
        right: for each test example in order, 0: misclassified or unknown, 1: broken, 2: survived.
        nominal_loss: mean of the last epoch, where it is limited.
        dual: mean of the dual variable over the last epoch.
        at_zero: share of the last epoch's batches in which it was 0.
        seconds: of training.
    """

    name: str
    seed: int
    accuracies: tuple[float, float, float, float]
    right: str
    nominal_loss: float | None
    dual: float | None
    at_zero: float | None
    seconds: float


def main() -> None:
    """Print the table and the differences."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("sweep", type=Path, nargs="+")
    options.add_argument("--beside", default="trades")
    options.add_argument("--keep", type=Path)
    parsed = options.parse_args()
    runs_by_name = {(run.name, run.seed): run for path in parsed.sweep for run in trained(path)}
    if parsed.keep is not None:
        write_jsonl(parsed.keep, (asdict(runs_by_name[key]) for key in sorted(runs_by_name)))
    rows: dict[str, list[Trained]] = {}
    for key in sorted(runs_by_name):
        rows.setdefault(key[0], []).append(runs_by_name[key])
    print("| | seeds | clean | FGSM | and `pgd` | and `standard` | lowest, highest | nominal loss | dual | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, runs in rows.items():
        print(row(name, runs))
    for name in rows:
        if name != parsed.beside:
            print(beside(rows[name], rows[parsed.beside]))


def trained(path: Path) -> Iterable[Trained]:
    """Return the finished runs of a sweep, or of a file of --keep."""
    if path.suffix == ".jsonl":
        return [Trained(**{**line, "accuracies": tuple(line["accuracies"])}) for line in read_jsonl(path)]
    return [from_sweep(run) for run in json.loads(path.read_text())["runs"] if run["status"] == "done"]


def from_sweep(run: Mapping[str, Any]) -> Trained:
    """Return a run of a sweep."""
    values = {axis: value for axis, value in run["values"].items() if axis != "seed"}
    name = ", ".join(value if axis == "method" else f"{axis} {value}" for axis, value in values.items())
    after = [attack["robust_after"] for attack in run["evaluation"]["attacks"]]
    if len(after) != len(SUITE.attacks):
        raise SystemExit(f"{run['run']} was not evaluated under {SUITE.name}: sweep with this file's SUITE.")
    last = read_jsonl(Path(run["run"]) / "metrics.jsonl")[-1]
    parts = sorted((Path(run["run"]) / "evaluation").glob(f"**/{SUITE.name}/part-*.parquet"))
    verdicts = [verdict for part in parts for verdict in pyarrow.parquet.read_table(part)["verdict"].to_pylist()]
    return Trained(
        name or Path(run["run"]).parent.name,
        int(run["values"].get("seed", 0)),
        (run["evaluation"]["clean_accuracy"], after[0], after[len(PGD_SUITE.attacks)], after[-1]),
        "".join("2" if verdict == "survived" else "1" if verdict == "broken" else "0" for verdict in verdicts),
        last.get("nominal_loss"),
        last.get("dual"),
        last.get("dual_at_zero"),
        run["seconds"],
    )


def row(name: str, runs: Sequence[Trained]) -> str:
    """Return a row of the table."""
    means = [f"{sum(run.accuracies[k] for run in runs) / len(runs):.1%}" for k in range(4)]
    robust = [run.accuracies[3] for run in runs]
    limited = [
        ", ".join(f"{value:.2g}" for value in values if value is not None)
        for values in ([run.nominal_loss for run in runs], [run.dual for run in runs])
    ]
    seconds = sum(run.seconds for run in runs) / len(runs)
    return (
        f"| {name} | {len(runs)} | {' | '.join(means)} | {min(robust):.1%}, {max(robust):.1%} | "
        f"{' | '.join(limited)} | {seconds:.0f} |"
    )


def at_least(runs: Sequence[Trained], least: str) -> Tensor:
    """Return the correctness of each example by run, as 0 and 1: (seeds, examples)."""
    return torch.tensor([[float(code >= least) for code in run.right] for run in runs], dtype=torch.float64)


def beside(runs: Sequence[Trained], baseline: Sequence[Trained]) -> str:
    """Return a sentence on both differences, over the common seeds."""
    seeds = {run.seed for run in runs} & {run.seed for run in baseline}
    by_seed = [{run.seed: run for run in group} for group in (runs, baseline)]
    first_right, second_right = ([group[seed] for seed in sorted(seeds)] for group in by_seed)
    lost, gained = (interval(at_least(first_right, least) - at_least(second_right, least)) for least in ("2", "1"))
    texts = [f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]" for mean, low, high in (lost, gained)]
    close = verdict(lost[1] + CLOSE, lost[2] + CLOSE, len(seeds))
    return (
        f"{runs[0].name} - {baseline[0].name}, {len(seeds)} seeds: robust {texts[0]}, no more than {CLOSE:.1%} lost: "
        f"{close}; clean {texts[1]}, higher: {verdict(*gained[1:], len(seeds))}"
    )


if __name__ == "__main__":
    main()
