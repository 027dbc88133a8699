"""The page of a study, its figure, and the index of all verdicts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unperturbed.evaluation.hashes import versions
from unperturbed.reports.charts.differences import Difference, differences_chart
from unperturbed.reports.charts.style import save_chart
from unperturbed.runs import write_json, write_text
from unperturbed.specs.spec import describe
from unperturbed.studies.by_name import names
from unperturbed.studies.design import SCALES, Run, Scale, Setting
from unperturbed.studies.rule import Verdict
from unperturbed.studies.study import Result
from unperturbed.studies.values import Values

RESULT = "study.json"


def folder_of(out: Path, name: str, scale: Scale) -> Path:
    """Return the folder of a study's results at a scale."""
    return out / f"{name}-{scale}"


def write_pages(result: Result, out: Path) -> Path:
    """Write the page, the figures and the values of a study, and the index of all studies; return the page."""
    folder = folder_of(out, result.study.name, result.scale)
    figures = []
    for number, (setting, values, _) in enumerate(result.settings, 1):
        verdicts = [verdict for of, verdict in result.verdicts if of is setting]
        figure = folder / ("study.svg" if len(result.settings) == 1 else f"study-{number}.svg")
        chart = (
            differences_chart([_difference(verdict) for verdict in verdicts], result.study.name, setting.name)
            if result.study.draw is None
            else result.study.draw(setting, values)
        )
        save_chart(chart, figure)
        figures.append(figure)
    page = folder / "study.md"
    write_text(page, page_of(result, [figure.name for figure in figures]))
    write_json(folder / RESULT, json_of(result))
    write_text(out / "index.md", index_of(out))
    return page


def page_of(result: Result, figures: Sequence[str]) -> str:
    """Return the page as Markdown."""
    study = result.study
    parts = [f"# {study.name}, {result.scale}", study.claim, f"Source: {study.source}."]
    for number, (setting, values, runs) in enumerate(result.settings):
        verdicts = [verdict for of, verdict in result.verdicts if of is setting]
        parts += [
            f"## {setting.name}",
            _about(setting),
            _networks(values, runs),
            "Means over seeds. Run: median seconds of a training, which shares the processor with other work. Steps: "
            "median seconds of its steps on one thread, alternating with those of the other networks.",
            _table(
                ("claim", "verdict", "difference", "95%", "p", "seeds or repeats", "examples"),
                [_row(verdict) for verdict in verdicts],
            ),
            f"![{study.name}]({figures[number]})",
        ]
        parts += [f"- {verdict}" for verdict in verdicts]
    parts.append(
        f"Intervals cover seeds and examples; p is two-sided, adjusted for {len(result.verdicts)} tests (Holm 1979). "
        f"unperturbed {versions()['unperturbed']}, PyTorch {versions()['torch']}."
    )
    return "\n\n".join(parts) + "\n"


def json_of(result: Result) -> dict[str, Any]:
    """Return the verdicts as plain values."""
    return {
        "study": result.study.name,
        "scale": result.scale,
        "claim": result.study.claim,
        "verdicts": [
            {
                "setting": setting.name,
                "claim": verdict.claim.sentence,
                "decision": verdict.decision,
                "difference": _finite(verdict.mean),
                "interval": [_finite(verdict.low), _finite(verdict.high)],
                "p": verdict.p,
                "seeds": verdict.seeds,
                "examples": verdict.examples,
                "needed": verdict.needed,
                "reason": verdict.further(),
                "sentence": str(verdict),
            }
            for setting, verdict in result.verdicts
        ],
    }


def stored_verdicts(out: Path, name: str, scale: Scale) -> list[Mapping[str, Any]]:
    """Return the verdicts of a finished study; none if it has not been run, or its file is damaged."""
    try:
        return list(json.loads((folder_of(out, name, scale) / RESULT).read_text(encoding="utf-8"))["verdicts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def index_of(out: Path) -> str:
    """Return the verdicts of all finished studies as Markdown."""
    rows = [
        (f"[{name}]({name}-{scale}/study.md)", scale, verdict["setting"], verdict["claim"], verdict["decision"],
         verdict["reason"])
        for name in names()
        for scale in SCALES
        for verdict in stored_verdicts(out, name, scale)
    ]  # fmt: skip
    return f"# Verdicts\n\n{_table(('study', 'scale', 'setting', 'claim', 'verdict', ''), rows)}\n"


def _about(setting: Setting) -> str:
    train = "all training examples" if setting.train is None else f"the first {setting.train:,} training examples"
    test = "all test examples" if setting.test is None else f"the first {setting.test:,} test examples"
    options = ", ".join(f"{name} {value}" for name, value in setting.options.items())
    parts = [train, test, f"suite {setting.suite}", f"{setting.seeds} seeds", *([options] if options else [])]
    return f"{', '.join(parts)[0].upper()}{', '.join(parts)[1:]}."


def _networks(values: Values, runs: Sequence[Run]) -> str:
    quantities = list(dict.fromkeys(quantity for _, quantity in values.measured))
    rows = []
    for run in runs:
        name = run.network.name
        cells = [_mean(values.measured[name, q]) if (name, q) in values.measured else "" for q in quantities]
        steps = f"{float(values.seconds[name].median()):.3g} s" if name in values.seconds else ""
        rows.append((name, _chosen(run), *cells, f"{float(values.training[name].nanmedian()):.3g} s", steps))
    return _table(("network", "chosen", *quantities, "run", "steps"), rows)


def _chosen(run: Run) -> str:
    """Return the fields that tell the chosen method from the others, or "" if there is no choice."""
    methods = run.network.methods
    if len(methods) == 1:
        return ""
    options = [_options(describe(method)) for method in methods]
    chosen = _options(describe(run.method))
    fields = [f"{name} {value}" for name, value in chosen.items() if any(value != other.get(name) for other in options)]
    at_end = ["an end of its range"] if run.method in (methods[0], methods[-1]) else []
    return ", ".join([*fields, *at_end])


def _options(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a described object by name, those of nested objects after a dot."""
    options: dict[str, Any] = {}
    for name, value in described.get("init_args", {}).items():
        if isinstance(value, Mapping):
            options |= {f"{name}.{below}": inner for below, inner in _options(value).items()}
        else:
            options[name] = value
    return options


def _mean(values: torch.Tensor) -> str:
    """Return the mean as a share for values of 0 and 1, otherwise as a number."""
    known = values[values.isfinite()]
    if len(known) == 0:
        return ""
    is_share = bool(((known == 0) | (known == 1)).all())
    return f"{float(known.mean()):.1%}" if is_share else f"{float(known.mean()):.4g}"


def _row(verdict: Verdict) -> tuple[str, ...]:
    interval = f"[{verdict.number(verdict.low)}, {verdict.number(verdict.high)}]"
    further = f" ({verdict.further()})" if verdict.further() else ""
    return (
        verdict.claim.sentence, f"*{verdict.decision}*{further}", verdict.number(verdict.mean), interval,
        f"{verdict.p:.2g}", str(verdict.seeds), str(verdict.examples),
    )  # fmt: skip


def _difference(verdict: Verdict) -> Difference:
    ends = (-verdict.claim.threshold, verdict.claim.threshold)
    thresholds = ends if verdict.claim.kind == "within" else ends[1:]
    return Difference(verdict.claim.sentence, verdict.mean, verdict.low, verdict.high, verdict.decision, thresholds)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def _finite(value: float) -> float | None:
    return value if torch.tensor(value).isfinite() else None
