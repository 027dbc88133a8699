"""Evaluate a run by all processes that torchrun starts, on one machine or several.

    torchrun --nnodes 2 --nproc-per-node 4 evaluate_in_group.py RUN SUITE OUT

All processes must see the folder OUT; the same command resumes.
"""

import sys

import torch

import unperturbed as un


def main() -> None:
    """Share the examples with the other processes, and print the result in the first one."""
    folder, suite, out = sys.argv[1:]
    torch.distributed.init_process_group("gloo")
    run = un.Run.open(folder)
    outcome = un.evaluate(run.model, run.data, run.threat, suite, out=out)
    if torch.distributed.get_rank() == 0:
        print(outcome)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
