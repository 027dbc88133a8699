"""--label and --resize reach the data that they are of, in every command, or are refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from unperturbed.cli import train
from unperturbed.cli.main import main
from unperturbed.cli.options import parse
from unperturbed.errors import InputError

MODEL = ("--model", "mlp", "--weights", "none.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    np.savez("arrays.npz", x=np.ones((40, 2), np.float32), y=np.arange(40) % 2)
    for name, kinds in (("table", 3), ("more", 3), ("other", 2)):
        rows = "\n".join(f"{k / 60},{k % kinds},{k % 2}" for k in range(60))
        Path(f"{name}.csv").write_text(f"length,kind,label\n{rows}\n")


@pytest.mark.parametrize("command", [("train",), *((name, *MODEL) for name in ("evaluate", "curve", "diagnose"))])
@pytest.mark.parametrize("option", [("--label", "age"), ("--resize", "8,8")])
@pytest.mark.parametrize("data", ["arrays.npz", "digits", "package.module:data"])
def test_an_option_that_the_data_do_not_take_ends_in_bad_usage(
    command: tuple[str, ...], option: tuple[str, str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--data", data, *option]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert option[0] in err and "does not apply" in err and data in err
    assert not Path("runs").exists()


def planned(*words: str) -> train.Plan:
    return train.plan(parse(train.parser(), ("--data", "table.csv", "--label", "kind", "--threat", "Linf:0.1", *words)))


@pytest.mark.filterwarnings("ignore:.*held out as the test split")
def test_extra_data_have_the_label_of_the_data() -> None:
    """With its own `label` column as the label, extra examples would have taught another question."""
    plan = planned("--extra", "more.csv")
    assert plan.extra is not None and plan.extra.classes == ("0", "1", "2")
    assert str(plan.config["extra"]).endswith("more.csv?label=kind")
    plan = planned("--extra", "more.csv?label=label")
    assert plan.extra is not None and plan.extra.classes == ("0", "1")
    with pytest.raises(InputError, match="does not apply"):
        planned("--extra", "arrays.npz?label=kind")
