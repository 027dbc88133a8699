"""Reading arguments: plain options by jsonargparse, options of options as trees, a YAML file beneath both."""

import json
import re
from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from unperturbed.checks import check_numeral
from unperturbed.errors import InputError, hint
from unperturbed.imports import WORDS, Trust, user_trust
from unperturbed.reading import parse_yaml, read_small
from unperturbed.specs.trees import Tree

FLAGS = ("debug", "json", "overwrite", "quantize", "resume", "trust")
"""Options without a value."""
TREES = ("method", "model")
"""Options whose values have options."""
LISTS = ("bounds", "eps", "loggers", "normalise", "threat")
"""Options whose text is a list with commas."""
REPEATED = ("threat",)
"""Those of them that may also be given several times."""
NONE = ("augment", "bounds", "loggers")
"""Options that take the word none."""
IMPORTED = ("model", "method", "data", "extra", "suite", "diagnostics", "over")
"""Options whose values, or some of them, may be import paths."""
NOTES = ("schema", "unperturbed", "chosen", "classes", "features", "network", "trained_on", "notes")
"""What a run's config.yaml holds in addition to options; `recipe` holds some of them."""

_KINDS = {"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false"}
"""Types of options in words."""


@dataclass(frozen=True)
class Parsed:
    """What a command was given.

    Attributes:
        plain: its plain options by name.
        trees: its options with options.
        argv: the words as they came.
        trust: which import paths are followed: those among the words, not those that a file holds.
    """

    plain: Namespace
    trees: Mapping[str, Tree]
    argv: Sequence[str] = ()
    trust: Trust = Trust()

    def __getattr__(self, name: str) -> Any:
        """Return a plain option."""
        return getattr(self.plain, name)


class _WithoutTypes(DefaultHelpFormatter):
    """Writes an option's help without Python's types, and its default where it has one."""

    def _expand_help(self, action: Action) -> str:
        noise = r" *\((?:type: [^()]*?)?(?:, )?(?:default: ([^()]*|\([^()]*\)))?\)$"
        text = re.sub(noise, "", super()._expand_help(action))
        default = action.default
        if isinstance(default, bool) or default in (None, SUPPRESS) or "(default: " in text:
            return text
        return f"{text} (default: {', '.join(map(str, default)) if isinstance(default, list | tuple) else default})"


def new_parser(command: str, summary: str, epilog: str = "") -> ArgumentParser:
    """Return a parser for a command, with the options that every command has."""
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
        help="follow import paths in the run folder and --config: their code runs",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, all else on error")
    return parser


def add_data_options(parser: ArgumentParser) -> None:
    """Add what says which data, model and threat set."""
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML with any of these options")
    parser.add_argument(
        "--data",
        type=str | None,
        help="a name, Hugging Face id, folder, .npz or package.module:function (see datasets)",
    )
    parser.add_argument("--label", type=str | None, metavar="COLUMN", help="of a table or Parquet files: the label")
    parser.add_argument("--resize", type=str | None, metavar="H,W", help="height and width that images are resized to")
    parser.add_argument(
        "--model", type=str | None, help="a name (see models) or package.module:Class; --model.X sets its argument X"
    )
    parser.add_argument("--weights", type=str | None, metavar="FILE", help="safetensors, or .pt without code in it")
    parser.add_argument(
        "--output", type=str | None, metavar="PART", help="of what the model returns, the logits: a place (1) or a name"
    )
    parser.add_argument("--scale", type=float | None, metavar="S", help="the model expects inputs times S: 255")
    parser.add_argument(
        "--normalise", type=str | None, metavar="MEAN,STD", help="the model expects inputs normalised so, or imagenet"
    )
    parser.add_argument("--threat", type=str | None, help="norm and radius: Linf:8/255, L2:0.5, L1:12")
    parser.add_argument(
        "--bounds", type=str | None, metavar="none|LOW,HIGH", help="of the inputs (default: the data's, or 0,1)"
    )
    parser.add_argument("--out", type=str | None, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")


def add_measuring_options(parser: ArgumentParser, seed: str, precision: str) -> None:
    """Add which test examples are measured, and how; `seed` and `precision` complete the help of these options."""
    add_examples_options(parser, "test")
    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that the network sees at a time"
    )
    parser.add_argument(
        "--precision", type=Literal["auto", "32", "64"], default="auto", help=f"of the arithmetic (auto: {precision})"
    )


def add_examples_options(parser: ArgumentParser, what: str, prefix: str = "", default: int | None = None) -> None:
    """Add which of the examples are used, where not all are."""
    parser.add_argument(
        f"--{prefix}examples",
        type=int | str | None,
        default=default,
        metavar="N",
        help=f"only the first N {what} examples or, where these are not like the rest, N drawn from every class in "
        "proportion; first:N, stratified:N or random:N insists",
    )
    parser.add_argument(
        f"--{prefix}examples-seed", type=int | None, metavar="S", help="N random ones; or the seed of stratified:N"
    )


def add_fields(parser: ArgumentParser, described: type, instead: Mapping[str, Any]) -> None:
    """Add the fields of a dataclass as options, helped by its docstring; `instead` replaces some of the types."""
    hints = {**get_type_hints(described), **instead}
    helps = {each.arg_name: each.description for each in parse_docstring(described.__doc__ or "").params}
    for each in fields(described):
        text = " ".join((helps.get(each.name) or "").split())
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=hints[each.name], default=each.default, help=text)


def parse(parser: ArgumentParser, argv: Sequence[str], positional: str | None = None) -> Parsed:
    """Return what the arguments say, on top of the YAML file that `--config` names.

    `positional` is the one argument without a name that the command takes, if any; "runs..." takes any number.

    Raises `InputError` for unknown options (with the nearest) and values of a wrong type.
    """
    known = known_options(parser, positional)
    pairs, places = _split(argv, known)
    for key, value in pairs:
        _check_given(key, value)
    pairs = _joined(pairs)
    if (places and not all(map(str.strip, places))) or any("\0" in word for word in argv):
        raise InputError("An argument is empty, or holds the character 0: leave it out, or name a folder.")
    file = next((value for key, value in reversed(pairs) if key == "config"), None)
    below = _from_yaml(Path(str(file)), known, "model" in dict(pairs)) if file is not None else []

    if len(places) > (positional is not None) and not (positional or "").endswith("..."):
        raise InputError(f"{places[-1]!r} is one argument too many: options begin with --. See {parser.prog} --help.")
    plain_pairs = [(key, value) for key, value in [*below, *pairs] if key.split(".")[0] not in TREES]
    tokens = [_token(key, value) for key, value in plain_pairs if not (key in FLAGS and value is False)]
    try:
        plain = parser.parse_args([*places, *tokens])
    except (ArgumentError, OverflowError, RecursionError) as error:
        raise InputError(_readable(str(error), parser.prog)) from error
    for key, value in pairs:
        check_numeral(f"--{key}", value, getattr(plain, key.replace("-", "_"), None))
    trust = _trust(pairs, plain.trust)
    if file is not None:
        trust = trust.of_file(Path(str(file)), [value for _, value in below])
    trees = {root: _tree(below, root).under(_tree(pairs, root)) for root in TREES}
    return Parsed(plain, trees, tuple(argv), trust)


def _trust(pairs: Sequence[tuple[str, Any]], everything: bool) -> Trust:
    """Return the trust in what the words of a command name: import paths as values, and arguments by their names.

    A file is no import path, though its name may look like one: `--data a.npz` vouches for no module `a`.
    """
    mine = [(key, str(value)) for key, value in pairs if key.split(".")[0] in IMPORTED]
    words = [word for _, value in mine for word in WORDS.split(value) if not Path(word).exists()]
    trust = user_trust(everything).naming(words)
    return replace(trust, named=trust.named | {key.rpartition(".")[2] for key, _ in mine if "." in key})


def known_options(parser: ArgumentParser, positional: str | None = None) -> list[str]:
    """Return the names of a parser's options, with dashes in them."""
    return [key.replace("_", "-") for key in vars(parser.get_defaults()) if key != (positional or "").rstrip(".")]


def divide(parser: ArgumentParser, argv: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options with these names, and all the others, each as one word that can be parsed again.

    Options of options go with the option that they are of.
    """
    pairs, _ = _split(argv, known_options(parser))
    parts: tuple[list[str], list[str]] = ([], [])
    for key, value in pairs:
        parts[key.split(".")[0] not in names].append(_token(key, value))
    return parts


def _split(argv: Sequence[str], known: Sequence[str]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return options with their values, and the other arguments."""
    pairs: list[tuple[str, Any]] = []
    places: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            places.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        key = _checked(key, known)
        if key in FLAGS and equals:
            raise InputError(f"--{key} takes no value, but {value!r} was given.")
        if key not in FLAGS and not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise InputError(f"--{key} needs a value.")
            value = following
        pairs.append((key, True if key in FLAGS else value))
    return pairs, places


def _check_given(key: str, value: Any) -> None:
    """Refuse a value that says nothing: empty text, and YAML's words for none where none is no value of the option."""
    below = "." in key  # an option of an option may be None
    nothing = ("", "~") if below else ("", "~", "null", "none")
    if isinstance(value, str) and value.strip().lower() in nothing and (value.lower() != "none" or key not in NONE):
        raise InputError(f"--{key} is {value!r}, which is no value: give one, or leave the option out.")


def _joined(pairs: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the options with those that may be given several times as one list, at the first one's place."""
    joined: dict[int, tuple[str, Any]] = {}
    for number, (key, value) in enumerate(pairs):
        earlier = next((place for place, (name, _) in joined.items() if name == key), None)
        if key in REPEATED and earlier is not None:
            joined[earlier] = key, f"{joined[earlier][1]},{value}"
        else:
            joined[number] = key, value
    return list(joined.values())


def _checked(key: str, known: Sequence[str]) -> str:
    root, dot, rest = key.partition(".")
    root = root.replace("_", "-")
    if root not in known or (dot and root not in TREES):
        raise InputError(f"There is no option --{key}. {hint(f'--{root}', [f'--{each}' for each in known])}")
    return root + dot + rest.replace("-", "_")


def _from_yaml(file: Path, known: Sequence[str], model_given: bool) -> list[tuple[str, Any]]:
    content = parse_yaml(read_small(file), f"--config {file}")
    if not isinstance(content, Mapping):
        raise InputError(f"--config {file} holds no mapping of options to values.")
    if "config" in content:
        raise InputError(f"--config {file} names another --config: write its options into this one.")
    if "trust" in content:
        raise InputError(f"--config {file} vouches for itself: take `trust` out, and give --trust if you trust it.")
    if "network" in content and "model" not in content and not model_given:
        raise InputError(f"--config {file} is of a network that was built in Python: name one that is, with --model.")
    settings = {key: value for key, value in content.items() if key not in (*NOTES, "recipe")}
    settings |= content.get("recipe") or {}
    return [(_checked(str(key), known), _as_text(str(key), value)) for key, value in settings.items()]


def _as_text(key: str, value: Any) -> Any:
    """Return what stands for a YAML value on the command line, for options with a text form."""
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


def _readable(message: str, program: str) -> str:
    """Return jsonargparse's message in one line."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
    text = re.sub(r'^Parser key "(\w+)":', lambda found: f"--{found[1].replace('_', '-')}:", text)
    of_no_kind = re.fullmatch(r"(--[\w-]+): Does not validate .*? Subtypes: \[([\w, ]+)\] .* Given value: (.*)", text)
    if of_no_kind is not None:
        kinds = [_KINDS.get(kind, kind) for kind in of_no_kind[2].split(", ") if kind != "NoneType"]
        text = f"{of_no_kind[1]} is {of_no_kind[3]!r:.80}, but must be {' or '.join(kinds)}."
    single = re.fullmatch(r"(--[\w-]+): Expected an? (\w+)\. Got value: (.*)", text)
    if single is not None:
        text = f"{single[1]} is {single[3]!r:.80}, but must be {_KINDS.get(single[2], single[2])}."
    return f"{text} See {program} --help."
