"""Parsing of arguments: plain options by jsonargparse, options of options as trees, with defaults from a YAML file."""

import json
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from unperturbed.checks import check_numeral
from unperturbed.cli.engine import add_engine_options
from unperturbed.cli.messages import readable
from unperturbed.errors import InputError, hint
from unperturbed.imports import WORDS, Trust, dotted, user_trust
from unperturbed.reading import parse_yaml, read_small
from unperturbed.specs.trees import Tree

FLAGS = ("choose", "debug", "json", "no-gate", "overwrite", "private", "quantize", "resume", "trust")
"""Options without a value."""
TREES = ("method", "model")
"""Options whose values have further options."""
LISTS = ("bounds", "eps", "normalise", "threat", "track")
"""Options with comma-separated lists."""
REPEATED = ("threat",)
"""Those that may also be given several times."""
NONE = ("augment", "bounds", "track")
"""Options that accept the word none."""
IMPORTED = ("model", "method", "data", "extra", "suite", "diagnostics", "engine", "over")
"""Options whose values may be import paths."""
NOTES = ("schema", "unperturbed", "chosen", "classes", "features", "network", "trained_on", "notes")
"""Entries of a run's config.yaml that are no options; `recipe` contains options, or is the name of a recipe."""

_THREAT = ("threat", "--threat NORM:RADIUS, such as --threat Linf:8/255")
_ELSEWHERE = {
    **dict.fromkeys(("eps", "epsilon", "norm", "radius"), _THREAT),
    "steps": ("method", "--method.steps N"),
    "learning-rate": ("lr", "--lr RATE"),
}
"""By names that other programs use: the option in question, and what to give."""


@dataclass(frozen=True)
class Parsed:
    """The parsed arguments of a command.

    Attributes:
        plain: its plain options by name.
        trees: its options with options.
        argv: the original words.
        trust: the trusted import paths: those among the words, not those in a file.
        given: names of the plain options that the words or the file of --config set.
    """

    plain: Namespace
    trees: Mapping[str, Tree]
    argv: Sequence[str] = ()
    trust: Trust = Trust()
    given: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        """Return a plain option."""
        return getattr(self.plain, name)


class _WithoutTypes(DefaultHelpFormatter):
    """Writes an option's help without Python's types, with its default if it has one."""

    def _expand_help(self, action: Action) -> str:
        noise = r" *\((?:required, )?(?:type: [^()]*?)?(?:, )?(?:default: ([^()]*|\([^()]*\)))?\)$"
        text = re.sub(noise, "", super()._expand_help(action))
        default = action.default
        if isinstance(default, bool) or default in (None, SUPPRESS) or "(default: " in text:
            return text
        return f"{text} (default: {', '.join(map(str, default)) if isinstance(default, list | tuple) else default})"


def new_parser(command: str, summary: str, epilog: str = "") -> ArgumentParser:
    """Return a parser for a command, with the common options."""
    parser = ArgumentParser(
        prog=f"unperturbed {command}",
        description=summary,
        epilog=epilog,
        exit_on_error=False,
        formatter_class=_WithoutTypes,
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="follow import paths in the run folder and --config (their code runs), and download the data they name",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, all else on error")
    return parser


def add_data_options(parser: ArgumentParser) -> None:
    """Add the options for data, model and threat set."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML with any of these options")
    parser.add_argument(
        "--data",
        type=str | None,
        help="a name, Hugging Face id, folder, .npz or package.module:function (see datasets)",
    )
    parser.add_argument("--label", type=str | None, metavar="COLUMN", help="of a table or Parquet files: the label")
    parser.add_argument("--resize", type=str | None, metavar="H,W", help="height and width of resized images")
    parser.add_argument(
        "--model",
        type=str | None,
        help="a name (see models), timm:NAME, or package.module:Class; --model.X sets its argument X",
    )
    parser.add_argument("--weights", type=str | None, metavar="FILE", help="safetensors, or .pt without code in it")
    parser.add_argument(
        "--output", type=str | None, metavar="PART", help="the logits in the model's output: a position (1) or a name"
    )
    parser.add_argument("--scale", type=float | None, metavar="S", help="the model expects inputs times S: 255")
    parser.add_argument(
        "--normalise", type=str | None, metavar="MEAN,STD", help="the model expects inputs normalised so, or imagenet"
    )
    parser.add_argument("--threat", type=str | None, help="norm and radius: Linf:8/255, L2:0.5, L1:12, L0:20")
    parser.add_argument(
        "--feature-eps",
        type=str | None,
        metavar="NAME=EPS,...",
        help="of single features of a table, in their units; 0: it never changes (others: the eps of --threat)",
    )
    parser.add_argument(
        "--bounds", type=str | None, metavar="none|LOW,HIGH", help="of the inputs (default: the data's, or 0,1)"
    )
    parser.add_argument("--out", type=str | None, metavar="FOLDER", help="folder of the results")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")


def add_measuring_options(parser: ArgumentParser, seed: str, precision: str) -> None:
    """Add the options of measurements; `seed` and `precision` complete their help."""
    add_examples_options(parser, "test")
    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_argument("--batch-size", type=Literal["auto"] | int, default="auto", help="examples in a batch")
    parser.add_argument(
        "--precision", type=Literal["auto", "32", "64"], default="auto", help=f"of the arithmetic (auto: {precision})"
    )
    add_engine_options(parser)


def add_examples_options(parser: ArgumentParser, kind: str, prefix: str = "", default: int | None = None) -> None:
    """Add the options for the selection of examples."""
    parser.add_argument(
        f"--{prefix}examples",
        type=int | str | None,
        default=default,
        metavar="N",
        help=f"only the first N {kind} examples or, if they do not represent the others, N drawn from every class in "
        "proportion; first:N, stratified:N or random:N enforces one way",
    )
    parser.add_argument(
        f"--{prefix}examples-seed", type=int | None, metavar="S", help="N random ones; or the seed of stratified:N"
    )


def add_fields(parser: ArgumentParser, described: type, instead: Mapping[str, Any]) -> None:
    """Add the fields of a dataclass as options, helped by its docstring; `instead` replaces some of the types."""
    hints = {**get_type_hints(described), **instead}
    helps = {
        option_field.arg_name: option_field.description
        for option_field in parse_docstring(described.__doc__ or "").params
    }
    for option_field in fields(described):
        text = " ".join((helps.get(option_field.name) or "").split())
        parser.add_argument(
            f"--{option_field.name.replace('_', '-')}",
            type=hints[option_field.name],
            default=option_field.default,
            help=text,
        )


def parse(parser: ArgumentParser, argv: Sequence[str], positional: str | None = None) -> Parsed:
    """Parse the arguments, with defaults from the YAML file of `--config`.

    `positional` is the name of the command's positional argument, if any; "runs..." takes any number.

    Raises `InputError` for unknown options (with the nearest) and values of a wrong type.
    """
    option_names = known_options(parser, positional)
    pairs, positionals = _split(argv, option_names)
    for key, value in pairs:
        _check_given(key, value)
    pairs = _joined(pairs)
    if (positionals and not all(map(str.strip, positionals))) or any("\0" in word for word in argv):
        raise InputError("An argument is empty, or holds the character 0: leave it out, or name a folder.")
    if dashed := [word for word in positionals if word.startswith("-")]:
        raise InputError(
            f"{dashed[0]} is no option, since these begin with two dashes: see {parser.prog} --help. A folder of this "
            f"name is ./{dashed[0]}."
        )
    if other := [word for word in argv if not word.isascii() and re.search("[\ud800-\udfff]", word)]:
        encoding = sys.getfilesystemencoding()
        remedy = "rename the file or folder" if encoding == "utf-8" else "set a locale of UTF-8 (LC_ALL=C.UTF-8)"
        raise InputError(f"{other[0]!r} is no text in {encoding.upper()}: {remedy}.")
    words = [*positionals, *(str(value) for key, value in pairs if key.split(".")[0] not in TREES)]
    if broken := [word for word in words if len(word.splitlines()) > 1]:
        raise InputError(f"{broken[0]!r} holds a line break: rename the file or folder, or give one line.")
    file = next((value for key, value in reversed(pairs) if key == "config"), None)
    below = _from_yaml(Path(str(file)), option_names, "model" in dict(pairs)) if file is not None else []

    if len(positionals) > (positional is not None) and not (positional or "").endswith("..."):
        raise InputError(
            f"{positionals[-1]!r} is one argument too many: options begin with --. See {parser.prog} --help."
        )
    plain_pairs = [(key, value) for key, value in [*below, *pairs] if key.split(".")[0] not in TREES]
    tokens = [_token(key, value) for key, value in plain_pairs if not (key in FLAGS and value is False)]
    try:
        plain = parser.parse_args([*positionals, *tokens])
    except (ArgumentError, OverflowError, RecursionError) as error:
        raise InputError(readable(str(error), parser.prog, dict(plain_pairs))) from error
    for key, value in pairs:
        check_numeral(f"--{key}", value, getattr(plain, key.replace("-", "_"), None))
    trust = _trust(pairs, plain.trust)
    if file is not None:
        trust = trust.of_file(Path(str(file)), [value for _, value in below])
    trees = {root: _tree(below, root).under(_tree(pairs, root)) for root in TREES}
    given = frozenset(key.replace("-", "_") for key, _ in plain_pairs)
    return Parsed(plain, trees, tuple(argv), trust, given)


def _trust(pairs: Sequence[tuple[str, Any]], everything: bool) -> Trust:
    """Return the trust in the words of a command: import paths as values, names of arguments, and places of data.

    A file is no import path, though its name may look like one: `--data a.npz` vouches for no module `a`.
    """
    mine = [(key, str(value)) for key, value in pairs if key.split(".")[0] in IMPORTED]
    words = [word for _, value in mine for word in WORDS.split(value) if not Path(word).exists()]
    trust = user_trust(everything).naming(words).giving(*(value for key, value in mine if key in ("data", "extra")))
    trust = trust.giving(*(str(value) for key, value in pairs if key == "weights"))
    models = {dotted(value) for key, value in mine if key == "model"}  # a file or a place of a hub, say
    return replace(trust, named=trust.named | models | {key.rpartition(".")[2] for key, _ in mine if "." in key})


def add_format(command_parser: ArgumentParser) -> None:
    """Add the option that prints results as rows."""
    command_parser.add_argument(
        "--format",
        type=Literal["latex", "markdown", "csv"] | None,
        help="print rows for a paper, a page or a spreadsheet instead of tables for reading",
    )


def known_options(parser: ArgumentParser, positional: str | None = None) -> list[str]:
    """Return the names of a parser's options, with dashes in them."""
    return [key.replace("_", "-") for key in vars(parser.get_defaults()) if key != (positional or "").rstrip(".")]


def divide(parser: ArgumentParser, argv: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options with these names, and all others, as single words for the parser.

    Options of options follow their option.
    """
    pairs, _ = _split(argv, known_options(parser))
    parts: tuple[list[str], list[str]] = ([], [])
    for key, value in pairs:
        parts[key.split(".")[0] not in names].append(_token(key, value))
    return parts


def _split(argv: Sequence[str], option_names: Sequence[str]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return options with their values, and the other arguments."""
    pairs: list[tuple[str, Any]] = []
    positionals: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            positionals.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        key = _checked(key, option_names)
        if key in FLAGS and equals:
            raise InputError(f"--{key} takes no value, but {value!r} was given.")
        if key not in FLAGS and not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise InputError(f"--{key} needs a value.")
            value = following
        pairs.append((key, True if key in FLAGS else value))
    return pairs, positionals


def _check_given(key: str, value: Any) -> None:
    """Raise InputError for an empty value, and for YAML's words for none if the option does not accept it."""
    below = "." in key  # an option of an option may be None
    nothing = ("", "~") if below else ("", "~", "null", "none")
    if isinstance(value, str) and value.strip().lower() in nothing and (value.lower() != "none" or key not in NONE):
        raise InputError(f"--{key} is {value!r}, which is no value: give one, or leave the option out.")


def _joined(pairs: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the options, with repeated ones merged into a list at the first position."""
    joined: dict[int, tuple[str, Any]] = {}
    for number, (key, value) in enumerate(pairs):
        earlier = next((index for index, (name, _) in joined.items() if name == key), None)
        if key in REPEATED and earlier is not None:
            joined[earlier] = key, f"{joined[earlier][1]},{value}"
        else:
            joined[number] = key, value
    return list(joined.values())


def _checked(key: str, option_names: Sequence[str]) -> str:
    root, dot, rest = key.partition(".")
    root = root.replace("_", "-")
    if root not in option_names and (place := _ELSEWHERE.get(root)) and place[0] in option_names:
        raise InputError(f"There is no option --{key}: give {place[1]}.")
    if root not in option_names or (dot and root not in TREES):
        raise InputError(f"There is no option --{key}. {hint(f'--{root}', [f'--{name}' for name in option_names])}")
    return root + dot + rest.replace("-", "_")


def _from_yaml(file: Path, option_names: Sequence[str], model_given: bool) -> list[tuple[str, Any]]:
    content = parse_yaml(read_small(file), f"--config {file}")
    if not isinstance(content, Mapping):
        raise InputError(f"--config {file} holds no mapping of options to values.")
    if "config" in content:
        raise InputError(f"--config {file} names another --config: write its options into this one.")
    if "trust" in content:
        raise InputError(f"--config {file} grants trust to itself: remove `trust`, and give --trust if you trust it.")
    if "network" in content and "model" not in content and not model_given:
        raise InputError(f"--config {file} is of a network that was built in Python: name one that is, with --model.")
    settings = {key: value for key, value in content.items() if key not in (*NOTES, "recipe")}
    recipe = content.get("recipe") or {}
    settings |= {"recipe": recipe} if isinstance(recipe, str) else recipe
    return [(_checked(str(key), option_names), _as_text(str(key), value)) for key, value in settings.items()]


def _as_text(key: str, value: Any) -> Any:
    """Return the command-line form of a YAML value, for options with a text form."""
    if key == "bounds" and value is None:
        return "none"
    return ",".join(map(str, value)) if key in LISTS and isinstance(value, list) else value


def _tree(pairs: Sequence[tuple[str, Any]], root: str) -> Tree:
    tree = Tree()
    for key, value in pairs:
        if key.split(".")[0] == root:
            tree.put(key.split(".")[1:], value)
    return tree


def _token(key: str, value: Any) -> str:
    if key in FLAGS:
        return f"--{key}"
    return f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
