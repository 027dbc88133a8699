"""The benchmarks of `make bench`, as ratios: training steps, and attacks beside those of other libraries.

Everything runs with one thread, in repeats that each measure all rows; a row has the median of its ratios, and their
smallest and largest. Times are of the processor, so that other programs disturb them little. The tables go into
`bench.json` and `bench.md`, which is the text of docs/results_benchmarks.md. Rows that are slower than
`benchmarks/baseline.json` by more than 20% are printed. The other libraries are the extra `bench`, and adv_lib
(`pip install --no-deps adv-lib`, with torchvision and visdom); a row of one that is missing says "not installed".

    python -m benchmarks [--data mnist] [--out runs/bench] [--check | --write]
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import torch
from benchmarks import bench_attacks, bench_steps
from benchmarks.ratios import (
    Row,
    joined,
    long_table,
    read_baseline,
    slower,
    unmatched,
    wide_table,
    write_baseline,
)

from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.cli.memory import keep_freed_memory
from unperturbed.networks.precision import choose

BASELINE = Path(__file__).with_name("baseline.json")
PACKAGES = ("unperturbed", "torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "adv-lib")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        repeats: of all rows.
        batch: of the steps on the small CNN.
        rounds: steps of each kind in a repeat, on the small CNN.
        large_batch: of the steps on PreActResNet; 0 leaves them out.
        examples: that are attacked.
        epochs: of the training of the attacked network.
    """

    repeats: int = 3
    batch: int = 64
    rounds: int = 3
    large_batch: int = 16
    examples: int = 48
    epochs: int = 8


def measured(size: Size, data: str | None) -> Iterator[list[Row]]:
    """Yield all rows after each repeat; those of steps are in the groups of their networks."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s: {what}", flush=True)

    say("the attacked network is trained")
    subject = bench_attacks.subject(data, size.examples, size.epochs)
    say("first steps")
    small = bench_steps.prepared("small-cnn", size.batch, size.rounds)
    large = bench_steps.prepared("preact-resnet", size.large_batch, 1) if size.large_batch else None
    repeats = []
    for repeat in range(size.repeats):
        say(f"repeat {repeat + 1} of {size.repeats}: steps")
        rows = small.times()
        if large:
            rows += large.times() + bench_steps.memory(large.network, size.large_batch)
        say(f"repeat {repeat + 1} of {size.repeats}: attacks")
        repeats.append(rows + bench_attacks.attacks(subject, repeat))
        yield joined(repeats)
    say("done")


def processor_kind() -> str:
    """Return the instructions that decide on speed, such as "avx2" or "avx512_bf16"."""
    kind = torch.backends.cpu.get_cpu_capability().lower()
    bfloat16 = choose("auto", SmallCNN(), torch.device("cpu")).autocast is not None
    return f"{kind}_bf16" if bfloat16 else kind


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name for people."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that were measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = bench_attacks.NOT_INSTALLED
    return found


def page(rows: list[Row], size: Size, data: str | None, loads: tuple[float, float]) -> str:
    """Return the tables with what they mean, in Markdown."""
    named = ", ".join(f"{package} {version}" for package, version in versions().items())
    lines = [
        "# Benchmarks",
        "",
        "All of `make bench`, by one run of it. A cell is the median ratio of "
        f"{size.repeats} interleaved repeats, with the smallest and the largest; below 1, ours costs less.",
        "",
        f"{time.strftime('%Y-%m-%d')}, {processor_name()} ({processor_kind()}), {os.cpu_count()} cores, one thread, "
        f"Python {platform.python_version()}, {named}. Times are of the processor. The load average was "
        f"{loads[0]:.1f} at the beginning and {loads[1]:.1f} at the end; this benchmark alone makes 1.0, more "
        "means that other programs ran as well.",
        "",
        "## Training steps",
        "",
        "One optimisation step of each method as `train` takes it, on random images. *Bare passes*: the forwards and "
        "backwards that the method's formula needs, and the optimiser's step, in plain PyTorch in float32. Peak "
        "memory: the growth of a fresh process in two steps.",
    ]
    headings = {
        "step, small-cnn": f"Small CNN with SiLU, images of 28 x 28, batch {size.batch}:",
        "step, preact-resnet": "PreActResNet-18 of width 16 with SiLU, images of 3 x 32 x 32, "
        f"batch {size.large_batch}:",
    }
    for group, heading in headings.items():
        of_group = [row for row in rows if row.group == group]
        columns = {key: head for key, head in bench_steps.COLUMNS.items() if any(row.beside == key for row in of_group)}
        lines += ["", heading, "", *wide_table(of_group, "method", columns)] if of_group else []
    images = f"`{data}`" if data else "the embedded digits in twice their size (16 x 16)"
    lines += [
        "",
        "## Attacks",
        "",
        f"Linf {bench_attacks.THREAT.eps}, small CNN after adversarial training on {images}, the first "
        f"{size.examples} test images, as one batch. Ours over theirs, processor time; *passes*: forwards an example, "
        "ours and theirs, and how many images they leave standing in the last repeat. The check of `fast`, by "
        "`standard` on 16 survivors or more, is left out: it would be most of the time on so few images. PGD takes all "
        "of its steps on every image; our APGD ends the search of an image once it is broken. Ours also checks the "
        "network first and verifies every point afterwards: the additional passes of PGD.",
        "",
        *long_table([row for row in rows if row.group == bench_attacks.GROUP]),
    ]
    return "\n".join(lines) + "\n"


def report(rows: list[Row], size: Size, data: str | None, loads: tuple[float, float]) -> str:
    """Return everything as JSON."""
    return json.dumps(
        {
            "date": time.strftime("%Y-%m-%d"),
            "processor": processor_name(),
            "kind": processor_kind(),
            "cores": os.cpu_count(),
            "load": loads,
            "versions": versions(),
            "size": asdict(size),
            "data": data or "digits",
            "rows": [asdict(row) | ({"ratio": row.ratio} if row.values else {}) for row in rows],
        },
        indent=2,
    )


def main() -> None:
    """Measure, write both files, and compare with the baseline."""
    standard = Size()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="images for the attacks; default: the embedded digits")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for bench.json and bench.md")
    parser.add_argument("--repeats", type=int, default=standard.repeats)
    parser.add_argument("--examples", type=int, default=standard.examples, help="that are attacked")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="exit 1 if a row is slower than its baseline by over 20%%")
    mode.add_argument("--write", action="store_true", help="make these ratios the baseline")
    arguments = parser.parse_args()
    kind = processor_kind()
    baseline = read_baseline(BASELINE, kind)
    if arguments.check and baseline is None:
        parser.error(f"there is no baseline for processors of the kind {kind}: write one with --write")
    if arguments.data and (arguments.check or arguments.write):
        parser.error(f"the baseline is of the embedded digits, not of {arguments.data}: leave --data out")
    size = Size(repeats=arguments.repeats, examples=arguments.examples)
    if arguments.repeats < 1 or not 1 <= arguments.examples <= 300:
        parser.error(f"--repeats {arguments.repeats} --examples {arguments.examples}: take 1 or more, and 1 to 300")
    torch.set_num_threads(1)
    keep_freed_memory()
    load = os.getloadavg()[0]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for repeat, rows in enumerate(measured(size, arguments.data)):
        loads, done = (load, os.getloadavg()[0]), replace(size, repeats=repeat + 1)
        (arguments.out / "bench.json").write_text(report(rows, done, arguments.data, loads) + "\n")
        (arguments.out / "bench.md").write_text(page(rows, done, arguments.data, loads))
    print((arguments.out / "bench.md").read_text())
    if arguments.write:
        write_baseline(BASELINE, kind, rows)
        print(f"{BASELINE} has the baseline of {kind}")
    elif baseline is not None and not arguments.data:
        late = slower(rows, baseline)
        print("\n".join([*unmatched(rows, baseline), *late]) or "no row is slower than its baseline by over 20%")
        sys.exit(1 if late and arguments.check else 0)


if __name__ == "__main__":
    main()
