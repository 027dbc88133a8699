"""`evaluate --suite corruptions`: accuracy under common corruptions, which is not robustness against an attack."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.options import Parsed
from unperturbed.errors import InputError
from unperturbed.runs.verify import write_sealed

if TYPE_CHECKING:
    from unperturbed.evaluation.corruptions import UnderCorruptions

NAME = "corruptions"
FOREIGN = ("threat", "eps", "quantize", "estimate", "no_gate", "devices", "format", "fail_under")
"""Options of `evaluate` that are about attacks, or not for corruptions."""


def is_named(suite: str) -> bool:
    """Tell whether --suite names corruptions, or corruptions:FOLDER."""
    return suite == NAME or suite.startswith(f"{NAME}:")


def run(parsed: Parsed) -> Result:
    """Measure, and return the accuracy for each corruption and severity."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.evaluation.corruptions import corruption_accuracy

    for option in FOREIGN:
        if option in parsed.given:
            raise InputError(
                f"--suite {NAME} is no attack and has no --{option.replace('_', '-')}: leave that option out."
            )
    _, colon, place = parsed.suite.partition(":")
    if colon and not place:
        raise InputError(f"--suite is {parsed.suite!r}: give {NAME}, or {NAME}:FOLDER with the files of CIFAR-10-C.")
    setup = find_setup(parsed)
    setup.keep()
    folder = setup.folder()
    with progress() as report, repeatable():
        found = corruption_accuracy(
            setup.model,
            replace(setup.data, test=setup.split),
            place or None,
            out=folder,
            overwrite=parsed.overwrite,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            engine=parsed.engine if parsed.engine is None else _engine(parsed),
            progress=report,
        )
    for text in found.warnings:
        say(text, "warning")
    value = found.json() | {"selection": setup.examples}
    write_sealed(Path(folder) / f"{NAME}.json", value)
    return Result({"run": str(setup.home)} | value, _views(found, setup.examples))


def _engine(parsed: Parsed) -> Any:
    from unperturbed.engines.by_name import find_engine

    return find_engine(parsed.engine, parsed.trust)


def _views(found: "UnderCorruptions", examples: str) -> list[Any]:
    rows = [
        ("clean accuracy", str(found.clean_accuracy)),
        (f"mean over {len(found.accuracy)} corruptions", str(found.mean_accuracy)),
        ("", found.note),
        *([("examples", examples)] if examples != "all" else []),
        ("time", f"{found.seconds:.1f} s"),
    ]
    cells = [
        (name, *(f"{share.value:.1%}" for share in shares), f"{sum(share.value for share in shares) / len(shares):.1%}")
        for name, shares in found.accuracy.items()
    ]
    by_corruption = table("accuracy by severity", ("corruption", *map(str, range(1, 6)), "mean"), cells)
    return [table("", ("", "corruptions"), rows), by_corruption]
