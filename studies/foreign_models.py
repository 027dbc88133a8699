"""Train twelve models of timm, transformers and torchvision by four methods, and measure them on the command line.

python studies/foreign_models.py --data cifar10 --out runs/foreign

Each model is trained for one epoch on a few images by each method, evaluated, measured by `curve`, and diagnosed. The
commands are those of `unperturbed`, run in this process, since to start one takes longer than its work here. Finished
commands are kept in `commands.jsonl`; rerunning resumes. `--table` prints the table of the finished commands.
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unperturbed.cli.main import main

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "timm:resnet18": {},
    "timm:mobilenetv3_small_050": {},
    "timm:vit_tiny_patch16_224": {"depth": 2, "patch_size": 8},
    "timm:convnext_atto": {},
    "timm:regnety_002": {},
    "transformers:vit": VIT,
    "transformers:swin": SWIN,
    "transformers:convnextv2": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
    "transformers:resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:resnet18": {},
    "torchvision:shufflenet_v2_x0_5": {},
}
"""The models, with options that make some of them small."""
METHODS: Mapping[str, tuple[str, ...]] = {
    "at": ("--method.steps", "2"),
    "llr": ("--method.steps", "2"),
    "scorpio": (),
    "dale": ("--method.steps", "2"),
}
BY_DIFFERENCES = ("timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small")
"""Models with layers that lack a second derivative: `llr` trains them in its form by differences."""
THREAT = "Linf:4/255"
MEASUREMENTS = ("evaluate", "curve", "diagnose")
STATES = {"train": "trained", "evaluate": "evaluated", "curve": "curved", "diagnose": "diagnosed"}


def commands(data: str, folder: Path, model: str, method: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a model and a method: their verbs and words."""
    run = str(folder / f"{model}-{method}".replace(":", "-"))
    options = [
        word
        for name, value in MODELS[model].items()
        for word in (f"--model.{name}", value if isinstance(value, str) else json.dumps(value))
    ]
    recipe = "--epochs 1 --batch-size 24 --validation 0.1 --precision 32".split()
    words = ["--data", data, "--model", model, *options, "--threat", THREAT, *recipe]
    form = ["--method.form", "differences"] if method == "llr" and model in BY_DIFFERENCES else []
    yield "train", [*words, "--method", method, *METHODS[method], *form, "--out", run]
    yield "evaluate", [run, "--examples", "32", "--suite", "apgd-ce", "--precision", "32"]
    yield "curve", [run, "--examples", "32", "--suite", "pgd", "--eps", "4/255"]
    if method == "at":
        yield "diagnose", [run, "--examples", "8", "--out", f"{run}-diagnosis"]


def run(verb: str, words: list[str]) -> dict[str, Any]:
    """Return the outcome of a command: its code, its JSON, its last message, its seconds."""
    out, messages, began = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(messages):
        code = main([verb, *words, "--json"])
    text = " ".join(messages.getvalue().split())
    value = json.loads(out.getvalue()) if code == 0 and out.getvalue() else None
    return {"code": code, "value": _brief(value), "text": text[-1200:], "seconds": time.perf_counter() - began}


def _brief(value: Any) -> Any:
    """Return the headline numbers of a command's JSON."""
    names = ("clean_accuracy", "robust_accuracy", "median_distance", "n")
    return {name: value[name] for name in names if name in value} if isinstance(value, Mapping) else None


def finished(file: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the outcomes of finished commands by model, method and verb."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["model"], row["method"], row["verb"]): row for row in rows}


def table(file: Path) -> Iterator[str]:
    """Yield the lines of a table in Markdown: what finished of each model and method, but for the training's form."""
    rows = finished(file)
    yield f"| model | {' | '.join(METHODS)} |"
    yield f"|---|{'---|' * len(METHODS)}"
    for model in MODELS:
        cells = [_cell({verb: rows.get((model, method, verb)) for verb in STATES}) for method in METHODS]
        form = " by differences:" if model in BY_DIFFERENCES else ""
        cells = [
            f"{form} {cell}".strip() if method == "llr" else cell for method, cell in zip(METHODS, cells, strict=True)
        ]
        yield f"| `{model}` | {' | '.join(cells)} |"


def _cell(outcomes: Mapping[str, dict[str, Any] | None]) -> str:
    """Return the states of a run by the commands that ended with exit code 0, and the codes of others."""
    ended = [STATES[verb] for verb, outcome in outcomes.items() if outcome is not None and not outcome["code"]]
    failed = [f"{verb}: code {outcome['code']}" for verb, outcome in outcomes.items() if outcome and outcome["code"]]
    return ", ".join([*ended, *failed]) or "not run"


def study(data: str, folder: Path, library: str) -> None:
    """Run the commands that have not finished, of the models of a library ("" for all)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "commands.jsonl"
    done = finished(file)
    chosen = [text for text in MODELS if text.startswith(library)]
    trainings = [("train", method, model) for method in METHODS for model in chosen]
    measured = [(verb, method, model) for method in METHODS for verb in MEASUREMENTS for model in chosen]
    for verb, method, model in (*trainings, *measured):
        key = model, method, verb
        not_trained = verb != "train" and done[model, method, "train"]["code"]
        if key in done or not_trained or (verb == "diagnose" and method != "at"):
            continue
        words = dict(commands(data, folder, model, method))[verb]
        row = {"model": model, "method": method, "verb": verb, **run(verb, words)}
        if row["code"] not in (0, 1, 2):
            raise SystemExit(f"{model} {method} {verb} was interrupted; the same command resumes.")
        done[key] = row
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        failure = row["text"][-200:] * bool(row["code"])
        print(model, method, verb, row["code"], f"{row['seconds']:.0f} s", failure, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs/foreign"))
    parser.add_argument(
        "--library", dest="source", default="", help="only the models of timm, transformers or torchvision"
    )
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print("\n".join(table(arguments.out / "commands.jsonl")))
    else:
        study(arguments.data, arguments.out, arguments.source)
