"""All explanations of one network, as they are computed and written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unperturbed.errors import InputError, RunError
from unperturbed.examinations.explain import explain, find_explanations
from unperturbed.threat import Threat

LINF = Threat("Linf", 0.1)


def network_of_images() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
        )


def images(n: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


@pytest.mark.long
@pytest.mark.slow
def test_all_explanations_are_computed_and_written(tmp_path: Path) -> None:
    model = network_of_images()
    explained = explain(
        model, images(), LINF, train=images(12), judge=network_of_images(), out=tmp_path, figures=("svg",)
    )
    assert not explained.failed
    index = json.loads((tmp_path / "explanation.json").read_text())
    assert list(index["explanations"]) == list(find_explanations(["all"])) and index["examples"] == 8
    numbers = [number for each in index["explanations"].values() for number in each["numbers"]]
    assert all(number["n"] > 0 and number["value"] is not None for number in numbers)
    assert {"grid", "svg"} == {figure["kind"] for figure in index["figures"]}
    for figure in index["figures"]:
        assert (tmp_path / figure["file"]).is_file() and figure["caption"] and figure["alt"]
    arrays = load_file(tmp_path / index["arrays"])
    assert arrays["saliency/natural_gradient"].shape == (6, 1, 8, 8)
    assert all(value.isfinite().all() for value in arrays.values())
    z = arrays["counterfactuals/counterfactual"]
    assert z.min() >= 0 and z.max() <= 1


def test_the_report_shows_the_grids_and_skips_the_index(tmp_path: Path) -> None:
    from unperturbed.results.sections.explanation import _blocks

    explain(network_of_images(), images(4), LINF, explanations=["saliency", "agreement"], out=tmp_path / "explanation")
    blocks = _blocks(tmp_path / "explanation")
    assert blocks and not any("left out" in str(block) for block in blocks)


@pytest.mark.long
@pytest.mark.slow
def test_inputs_that_are_no_images_get_scores_without_pictures(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.rand(9, 6, generator=torch.Generator().manual_seed(0))
    explained = explain(model, (x, torch.arange(9) % 3), LINF, train=(x, torch.arange(9) % 3), out=tmp_path)
    assert not explained.failed and not any(each.grids for each in explained.explanations.values())
    assert explained.explanations["alignment"].finding.numbers


def test_what_cannot_be_explained_is_refused_or_reported(tmp_path: Path) -> None:
    def fails(subject: object) -> None:
        raise ValueError("nothing there")

    model = network_of_images()
    with pytest.raises(InputError, match="saliency"):
        explain(model, images(), LINF, explanations=["salience"])
    with pytest.raises(InputError, match="The judge has 2 classes"):
        explain(model, images(), LINF, judge=nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    with pytest.raises(InputError, match="'gif'"):
        explain(model, images(), LINF, explanations=["agreement"], out=tmp_path, figures=("gif",))  # type: ignore[arg-type]
    explained = explain(model, images(), LINF, explanations=[fails, "agreement"])  # type: ignore[list-item]
    assert list(explained.explanations) == ["agreement"]
    with pytest.raises(RunError, match="nothing there"):
        explained.raise_failures()
