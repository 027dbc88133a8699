"""The command doctor, before a training and after it."""

import json

import pytest

from unperturbed.cli.main import main

UNTRAINED = ("doctor", "--data", "digits", "--model", "mlp")


def test_a_network_is_checked_before_it_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    """An accuracy at chance is no fault of a network without training; a fault of the threat is one."""
    assert main([*UNTRAINED, "--threat", "Linf:0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["symptoms"] == []


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        *(
            (name, text, "is not a threat")
            for name in ("--threat",)
            for text in ("Linf:1_0", "Linf:0x1", "Linf:\u0661")
        ),
        ("--threat", "Linf:1e400", "inf"),
        ("--bounds", "0,1_0", "LOW,HIGH"),
        ("--bounds", "\u0660,\u0661", "LOW,HIGH"),
        ("--bounds", "nan,1", "LOW,HIGH"),
        ("--bounds", "0;1", "LOW,HIGH"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "train"])
def test_a_threat_is_refused_before_data_are_read(
    command: str, option: str, value: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threat = () if option == "--threat" else ("--threat", "Linf:0.1")
    assert main([command, "--data", "nowhere.npz", *threat, option, value]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--precision", "16"), ["--precision is '16', but must be 32 or 64"]),
        (("--eps", "0.1"), ["no option --eps: give --threat NORM:RADIUS"]),
        (("--seed", "1e1"), ["--seed is '1e1', but must be a whole number"]),
    ],
)
def test_a_wrong_option_is_named_in_plain_words(
    words: tuple[str, ...], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*UNTRAINED, *words]) == 2
    err = capsys.readouterr().err
    assert all(part in err for part in parts) and "typing" not in err and "Union" not in err


def test_a_choice_of_a_word_or_a_number_is_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--batch-size", "x"]) == 2
    assert "--batch-size is 'x', but must be auto or a whole number." in capsys.readouterr().err


def test_a_word_with_one_dash_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "-rf"]) == 2
    assert "-rf is no option" in (err := capsys.readouterr().err) and "./-rf" in err


def test_data_of_no_possible_name_and_a_list_without_brackets_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", "a" * 5000, "--model", "mlp"]) == 2
    assert "name too long" in (err := capsys.readouterr().err) and len(err) < 400
    assert main([*UNTRAINED, "--model.hidden", "10"]) == 2
    assert "--model.hidden is '10', but must be a list in brackets of whole numbers" in capsys.readouterr().err
