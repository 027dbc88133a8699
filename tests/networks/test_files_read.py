"""Files that a network reads in its forward are part of what it is."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.toys import linear, uniform
from unperturbed.evaluation.hashes import network_hash
from unperturbed.networks.files_read import files_read

X = uniform(4, 6)


class Reading(nn.Module):
    """Reads a factor for inputs above 5 from a file, in each forward."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.inner, self.path = linear(6, 3), path

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(torch.where(x > 5, x * json.loads(self.path.read_text()), x))
        return logits


def test_a_file_that_the_forward_reads_is_seen_by_its_contents(tmp_path: Path) -> None:
    def fingerprint(place: Path, factor: float) -> tuple[str, tuple[str, ...]]:
        place.write_text(json.dumps(factor))
        return network_hash(Reading(place), X, 0)

    one, again = fingerprint(tmp_path / "a", 0.5), fingerprint(tmp_path / "a", 0.5)
    assert one == again != fingerprint(tmp_path / "a", 0.25)


def test_only_files_that_are_read_within_count(tmp_path: Path) -> None:
    inside, written, outside = tmp_path / "inside", tmp_path / "written", tmp_path / "outside"
    for path in (inside, outside):
        path.write_text("1")
    with files_read() as read:
        inside.read_text()
        written.write_text("2")
        with pytest.raises(OSError):
            (tmp_path / "missing").read_text()
    outside.read_text()
    assert set(read()) == {str(inside), str(tmp_path / "missing")}
    assert read()[str(inside)] != read()[str(tmp_path / "missing")]
