"""Messages of the parser of options, in plain words."""

import re
from collections.abc import Mapping
from typing import Any

_KINDS = {
    **{"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false"},
    **{"tuple": "values in brackets, such as [0.5,0.75]"},
}
"""Types of options in words."""


def readable(message: str, program: str, given: Mapping[str, Any]) -> str:
    """Return jsonargparse's message in one line, with the value as it was given."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
    text = re.sub(r'^Parser key "(\w+)":', lambda match: f"--{match[1].replace('_', '-')}:", text)
    several = re.fullmatch(r"(--[\w-]+): Does not validate .*? Subtypes: \[(.*)\] Errors: .* Given value: (.*)", text)
    single = re.fullmatch(r"(--[\w-]+): Expected an? (.*)\. Got value: (.*)", text)
    if match := several or single:
        value = given.get(match[1].removeprefix("--"), match[3])
        kinds = re.findall(r"'([^']*)'|([A-Za-z]+)", match[2].replace("typing.Literal", ""))
        words = [choice or _KINDS.get(kind, kind) for choice, kind in kinds if kind != "NoneType"]
        text = f"{match[1]} is {value!r:.80}, but must be {' or '.join(words)}."
    return f"{text} See {program} --help."
