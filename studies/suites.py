"""Survivors of each suite among the same test examples, with passes and seconds: a row for each suite.

A pass is a forward, with or without a backward. An interrupted evaluation is resumed, and a finished one is read.

    python studies/suites.py runs/at runs/fgsm --examples 200 --out runs/suites
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import unperturbed as un
from unperturbed.data.selection import choose, parse
from unperturbed.findings import Outcome


def rows(name: str, outcomes: dict[str, Outcome]) -> Iterator[str]:
    """Yield the rows of one network; the row of a suite with a gate has the survivors of the gate in brackets."""
    for suite, outcome in outcomes.items():
        passes = sum(attack.forwards for attack in outcome.attacks)
        standing, gate = str(outcome.counts["survived"]), ""
        if outcome.gate is not None:
            standing += f" ({outcome.gate.survivors})"
            gate = "all" if outcome.gate.reason else f"{outcome.gate.sampled}"
        correct = outcome.n - outcome.counts["misclassified"]
        cells = (name, outcome.threat, str(outcome.n), str(correct), suite, standing, gate)
        yield f"| {' | '.join(cells)} | {passes:,} | {outcome.seconds:.0f} |"


def breakers(outcomes: dict[str, Outcome]) -> Iterator[str]:
    """Yield, for each suite, the attacks and how many examples each was the first to break."""
    for suite, outcome in outcomes.items():
        parts = (f"{attack.name} {attack.broken} in {attack.forwards:,}" for attack in outcome.attacks)
        reason = "" if outcome.gate is None else outcome.gate.reason
        yield f"    {suite}: {', '.join(parts)}. {reason}"


def evaluated(folder: Path, options: argparse.Namespace) -> dict[str, Outcome]:
    """Return the outcomes of all suites on one network."""
    run = un.Run.open(folder, trust=options.trust)
    data = un.load_data(options.data) if options.data else run.data
    assert data.test is not None
    split, _ = choose(data.test, parse(options.examples))
    return {
        suite: un.evaluate(run.model, split, run.threat, suite, out=options.out / folder.name)
        for suite in options.suites
    }


def main() -> None:
    """Print the rows of each network, and what each attack broke."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", type=Path, nargs="+")
    options.add_argument("--data")
    options.add_argument("--examples", default="200")
    options.add_argument("--suites", nargs="+", default=["fast", "standard"])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--trust", action="store_true", help="follow import paths in the run folders")
    parsed = options.parse_args()
    print("| network | threat | n | correct | suite | standing | sampled | passes | seconds |\n" + 9 * "|---" + "|")
    for folder in parsed.runs:
        outcomes = evaluated(folder, parsed)
        print("\n".join([*rows(folder.name, outcomes), *breakers(outcomes)]), flush=True)


if __name__ == "__main__":
    main()
