"""Write results for other programs: rows for papers and spreadsheets, adversarial examples as arrays and as images."""

from typing import Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result
from unperturbed.cli.options import Parsed, add_format, new_parser
from unperturbed.errors import InputError

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("export", str(__doc__))
    command_parser.add_argument("runs", type=str, nargs="*", help="evaluated run folders; one for adversarial examples")
    add_format(command_parser)
    command_parser.add_argument(
        "--adversarial", type=str | None, metavar="FILE", help="write adversarial inputs with their originals as .npz"
    )
    command_parser.add_argument(
        "--sheet", type=str | None, metavar="FILE", help="write ten of them as images: .png, .pdf or .svg"
    )
    command_parser.add_argument("--suite", type=str | None, help="of the evaluation (default: the strongest)")
    command_parser.add_argument("--threat", type=str | None, help="of the evaluation, as its summary has it")
    command_parser.add_argument("--examples", type=int | None, help="the first N that were broken (default: all)")
    command_parser.add_argument("--data", type=str | None, help="where the data are now, if they have moved")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Write the requested files, and return the rows."""
    files = {name: path for name in ("adversarial", "sheet") if (path := getattr(parsed, name)) is not None}
    if parsed.format is None and not files:
        raise InputError("Nothing to export was named: give --format, --adversarial FILE or --sheet FILE.")
    if files and len(parsed.runs) != 1:
        raise InputError(f"--{next(iter(files))} is of one run: name one run folder, not {len(parsed.runs)}.")
    value: dict[str, Any] = {"runs": list(parsed.runs)}
    views: list[str] = []
    if parsed.format is not None:
        from unperturbed.results.accuracies import accuracies

        text = accuracies(parsed.runs, suite=parsed.suite, threat=parsed.threat).text(parsed.format)
        value["table"] = text
        views.append(text.rstrip("\n"))
    if files:
        value["examples"] = _write(parsed)
        value |= files
        views += [f"{'Sheet' if name == 'sheet' else 'Adversarial examples'}: {path}" for name, path in files.items()]
    return Result(value, views)


def _write(parsed: Parsed) -> int:
    """Write the adversarial examples, and return their number."""
    from unperturbed.results.adversarial import adversarial_set

    examples = adversarial_set(
        parsed.runs[0], suite=parsed.suite, threat=parsed.threat, examples=parsed.examples, data=parsed.data
    )
    if parsed.adversarial is not None:
        examples.save(parsed.adversarial)
    if parsed.sheet is not None:
        examples.sheet(parsed.sheet)
    return len(examples.ids)
