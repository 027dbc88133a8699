"""Print how many planted problems AutoAttack, PGD, one step and weakened attacks solve on the networks of run folders.

The planted problems are those of Zimmermann et al. 2022 (https://arxiv.org/abs/2206.13991), in the library's form.

    python studies/self_tests.py runs/at runs/trades --examples 100
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import unperturbed as un
from support.sabotaged import FGSM, sabotaged
from unperturbed.data.selection import choose, parse
from unperturbed.examinations.binarisation import binarisation
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.types import Batch


def main() -> None:
    """Print a row for each network, with solved and valid problems."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", type=Path, nargs="+")
    options.add_argument("--examples", default="100")
    options.add_argument("--problems", type=int, default=12)
    parsed = options.parse_args()
    for number, folder in enumerate(parsed.runs):
        run = un.Run.open(folder)
        assert run.data.test is not None
        split, _ = choose(run.data.test, parse(parsed.examples))
        ids = torch.arange(len(split))
        batch = Batch(split.inputs(ids), split.labels[ids], ids)
        attacks = {"`standard`": STANDARD, "`pgd`": PGD_SUITE, "one-step FGSM": FGSM, **sabotaged(run.threat)}
        if number == 0:
            print(f"| network | {' | '.join(attacks)} |\n{'|---' * (len(attacks) + 1)}|", flush=True)
        model = run.model.eval().requires_grad_(False)
        tests = [binarisation(model, batch, run.threat, attack, parsed.problems) for attack in attacks.values()]
        print(f"| {folder.name} | {' | '.join(f'{test.solved} of {test.valid}' for test in tests)} |", flush=True)


if __name__ == "__main__":
    main()
