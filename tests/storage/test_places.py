from pathlib import Path

import pytest

from unperturbed.errors import InputError
from unperturbed.storage.places import cache, divided, home_of, is_object_store, is_url, joined


@pytest.mark.parametrize("place", ["s3://bucket/runs/at", "gs://b/x", "memory://x", "hf://user/name", "file:///x/y"])
def test_urls_of_stores_are_told_from_other_places(place: str) -> None:
    assert is_url(place)


@pytest.mark.parametrize(
    "place",
    ["runs/at", "s3:/bucket", "https://x/y", "timm:resnet18", "s3://", "C://x", Path("s3://b/x"), None, "a s3://b"],
)
def test_other_places_are_no_urls(place: object) -> None:
    assert not is_url(place)


def test_repositories_of_the_hub_are_no_object_store() -> None:
    assert is_object_store("hf://buckets/user/name/run") and is_object_store("s3://bucket/run")
    assert not is_object_store("hf://user/name") and not is_object_store("hf://datasets/user/name")
    assert not is_object_store("runs/at") and not is_object_store(Path("runs/at"))


@pytest.mark.parametrize("url", ["s3://bucket/runs/at", "memory://a", "file:///a/b", "s3://bucket/runs/at/"])
def test_the_parts_of_a_url_make_it_again(url: str) -> None:
    assert joined(*divided(url)) == url.rstrip("/")


@pytest.mark.parametrize("url", ["s3://bucket/../x", "s3://bucket//x", "s3://bucket/.", "s3://b/a\\b", "s3://b/\n"])
def test_a_path_that_leads_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no place of a file or folder: write s3://BUCKET/FOLDER"):
        divided(url)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache() == tmp_path / "cache"
    monkeypatch.delenv("UNPERTURBED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "unperturbed"
    assert home_of("s3://a/b", "runs") != home_of("s3://a/c", "runs")
