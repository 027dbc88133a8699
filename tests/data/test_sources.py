import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unperturbed.data.forms.base import Form
from unperturbed.data.forms.table import TABLE
from unperturbed.data.names import DATASETS, HUB_SPECS
from unperturbed.data.sources import load_data
from unperturbed.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_every_name_has_a_source() -> None:
    assert set(DATASETS) == {"digits", *HUB_SPECS}


def test_digits() -> None:
    assert load_data("digits").name == "digits"


def test_files_and_folders_by_relative_path(folder: Path) -> None:
    np.savez(folder / "mine.npz", x=np.ones((4, 2)), y=np.arange(4))
    assert load_data("mine.npz").name == "mine"
    (folder / "owner" / "pets" / "train" / "cat").mkdir(parents=True)
    Image.new("L", (2, 2)).save(folder / "owner" / "pets" / "train" / "cat" / "0.png")
    assert load_data("owner/pets").name == "pets"  # a folder that is there goes before the hub


def test_a_function_of_the_users_own(folder: Path) -> None:
    (folder / "my_data_functions.py").write_text(
        "import numpy as np\n"
        "def one(): return np.ones((4, 2)), [0, 1, 2, 3]\n"
        "def two(): return (np.ones((4, 2)), [0, 1, 2, 3]), (np.ones((1, 2)), [0])\n"
        "number = 3\n"
    )
    assert load_data("my_data_functions:one").test is None
    assert len(load_data("my_data_functions:two").test) == 1  # type: ignore[arg-type]
    assert load_data("my_data_functions:one").name == "my_data_functions:one"
    with pytest.raises(InputError, match="has no 'three'"):
        load_data("my_data_functions:three")
    with pytest.raises(InputError, match="my_data_functions:number is no function"):
        load_data("my_data_functions:number")
    with pytest.raises(InputError, match="cannot be imported"):
        load_data("no_such_module:one")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("minst", "Did you mean 'mnist'"),
        ("qqqqq", "Known are: cifar10"),
        ("a/b/c", "no file or folder a/b/c"),
        ("mine.npz", "no file or folder mine.npz"),
        ("notes.txt", "file notes.txt holds no data in a form"),
        (".", "folder . holds no data in a form"),
        (".?lable=fine", "unknown choice 'lable'"),
        ("", "no data named ''"),
    ],
)
def test_what_names_no_data(folder: Path, spec: str, message: str) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match=message):
        load_data(spec)


def test_a_place_of_two_forms_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "points.csv").write_text("a,y\n1,0\n2,1\n")
    also = Form("a notebook", "a notebook", fits=lambda place: place.endswith(".csv"), load=lambda *_: pytest.fail())
    monkeypatch.setattr("unperturbed.data.sources._forms", lambda: (TABLE, also))
    with pytest.raises(InputError, match="points.csv may be a table or a notebook"):
        load_data("points.csv")


@pytest.mark.long
@pytest.mark.slow
def test_importing_the_door_imports_no_slow_library() -> None:
    program = (
        "import sys, unperturbed.data.sources; "
        "print([m for m in ('datasets', 'sklearn', 'huggingface_hub', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
