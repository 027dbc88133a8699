"""The SARIF log of an audit has the properties that the schema of SARIF 2.1.0 requires, and its enumerations."""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from unperturbed.examinations.causes import BY_NAME
from unperturbed.examinations.sarif import sarif
from unperturbed.examinations.verdict import Audit, Conclusion
from unperturbed.findings import Interval

HALF = Interval(0.5, 0.4, 0.6, 100)
TEXT: Any = {"text": str}
LOCATION: Any = {"physicalLocation": {"artifactLocation": {"uri": str}, "region": {"startLine": int}}}
SCHEMA: Any = {
    "$schema": str,
    "version": str,
    "runs": [
        {
            "columnKind": str,
            "tool": {
                "driver": {
                    "name": str,
                    "version": str,
                    "rules": [
                        {
                            "id": str,
                            "name": str,
                            "shortDescription": TEXT,
                            "fullDescription": TEXT,
                            "help": TEXT,
                            "defaultConfiguration": {"level": str},
                        }
                    ],
                }
            },
            "results": [
                {
                    "ruleId": str,
                    "ruleIndex": int,
                    "level": str,
                    "message": TEXT,
                    "locations": [LOCATION],
                    "partialFingerprints": Mapping,
                }
            ],
        }
    ],
}
"""The properties used, of their types in the schema; all names are exact, since the schema allows no others there."""


def log_of(verdict: Conclusion, causes: tuple[str, ...]) -> Any:
    found = Audit(
        verdict,
        causes,
        HALF,
        HALF,
        HALF,
        "pgd",
        "Linf:0.1",
        (),
        (),
        (),
        (),
        1.0,
        {"unperturbed": "0.1.0", "network": "n"},
    )
    return json.loads(json.dumps(sarif(found, "config.yaml"), allow_nan=False))


def check(value: Any, schema: Any, place: str) -> None:
    if isinstance(schema, type):
        assert isinstance(value, schema) and not (schema is str and not value), f"{place} is {value!r}"
    elif isinstance(schema, list):
        assert isinstance(value, list), place
        for number, entry in enumerate(value):
            check(entry, schema[0], f"{place}[{number}]")
    else:
        assert isinstance(value, dict) and value.keys() == schema.keys(), f"{place} has {sorted(value)}"
        for name, inner in schema.items():
            check(value[name], inner, f"{place}.{name}")


@pytest.mark.parametrize("verdict", get_args(Conclusion))
def test_the_log_has_the_form_of_the_schema(verdict: Conclusion) -> None:
    causes = () if verdict in ("no sign of obfuscation", "undecided") else tuple(BY_NAME)
    log = log_of(verdict, causes)
    check(log, SCHEMA, "log")
    (run,) = log["runs"]
    assert log["version"] == "2.1.0" and log["$schema"].startswith("https://")
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    rules = run["tool"]["driver"]["rules"]
    identifiers = [rule["id"] for rule in rules]
    assert len({*identifiers}) == len(identifiers), "the schema asks for unique items"
    for rule in rules:
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert re.fullmatch(r"[A-Za-z]+", rule["name"]), "one word of letters, as code hosts show it"
    for result in run["results"]:
        assert result["level"] in ("none", "note", "warning", "error")
        assert identifiers[result["ruleIndex"]] == result["ruleId"] and result["ruleIndex"] >= -1
        region = result["locations"][0]["physicalLocation"]["region"]
        assert (
            region["startLine"] >= 1
            and "\\" not in result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        )
        assert all(isinstance(mark, str) for mark in result["partialFingerprints"].values())


def test_the_level_follows_the_verdict() -> None:
    def levels(verdict: Conclusion, causes: tuple[str, ...]) -> list[str]:
        return [result["level"] for result in log_of(verdict, causes)["runs"][0]["results"]]

    assert levels("no sign of obfuscation", ()) == []
    assert levels("undecided", ()) == ["note"]
    assert levels("suspicious", ("weak suite",)) == ["warning"]
    assert levels("suspicious", ()) == ["warning"], "a failed check without a cause is not silent"
    assert levels("obfuscated", ("zero gradient", "shattered")) == ["error", "error"]


def test_a_wrong_form_is_noticed() -> None:
    log = log_of("obfuscated", ("saturation",))
    log["runs"][0]["results"][0]["severity"] = "high"
    with pytest.raises(AssertionError, match="severity"):
        check(log, SCHEMA, "log")
