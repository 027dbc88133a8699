"""Commands on URLs of an object store: the results of the same commands on this machine, and only whole ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from support.object_stores import put_folder, write_digits
from unperturbed.cli import console, places
from unperturbed.cli.main import main
from unperturbed.errors import InputError
from unperturbed.storage.manifest import newest
from unperturbed.storage.object_store import ObjectStore

TRAIN = ("--method", "fgsm", "--model", "mlp", "--threat", "Linf:0.1", "--epochs", "2", "--device", "cpu")
EVALUATE = ("--suite", "apgd-ce", "--examples", "16", "--device", "cpu", "--json")
URL = "memory://bucket/runs/at"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
    """Return an empty store with data; the cache of this machine is empty, too."""
    monkeypatch.setenv("UNPERTURBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(console, "_shown", {})
    monkeypatch.chdir(tmp_path)
    MemoryFileSystem.store.clear()
    put_folder(MemoryFileSystem(), write_digits(tmp_path / "digits"), "/bucket/digits")
    return MemoryFileSystem()


def json_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(words) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def without(value: Any, *names: str) -> Any:
    """Return a result without times, and the entries of these names."""
    if isinstance(value, dict):
        return {k: without(v, *names) for k, v in value.items() if k not in ("seconds", "run", *names)}
    return [without(part, *names) for part in value] if isinstance(value, list) else value


def published(url: str = URL) -> set[str]:
    manifest, _ = newest(ObjectStore(url))
    assert manifest is not None and manifest.holder is None
    return set(manifest.files)


@pytest.mark.long
@pytest.mark.slow
def test_train_evaluate_curve_and_report_give_what_they_give_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for data, run in (("./digits", "runs/at"), ("memory://bucket/digits", URL)):
        trained = json_of(capsys, "train", "--data", data, *TRAIN, "--out", run, "--json")
        evaluated = json_of(capsys, "evaluate", run, *EVALUATE)
        curve = json_of(capsys, "curve", run, "--eps", "0.05,0.1", "--examples", "2", "--device", "cpu", "--json")
        assert evaluated["run"] == curve["run"] == run
        assert curve["figure"].startswith(run)
        results.append(without([trained, evaluated, curve], "figure", "warnings"))
    assert results[0] == results[1]
    here = {str(path.relative_to("runs/at")) for path in Path("runs/at").rglob("*") if path.is_file()}
    assert published() == here

    monkeypatch.setenv("UNPERTURBED_CACHE", str(tmp_path / "another machine"))
    page = json_of(capsys, "report", URL, "--out", "memory://bucket/page.html", "--json")
    assert page["page"] == "memory://bucket/page.html" and page["damaged"] == []
    assert b"</html>" in store.cat_file("/bucket/page.html") and published() == here
    assert json_of(capsys, "report", URL, "--json")["page"] == f"{URL}/report.html"
    assert published() == {*here, "report.html"}
    assert "config.yaml" in here and "memory://bucket/digits" in pulled(capsys)["config.yaml"]


def pulled(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    folder = Path(json_of(capsys, "pull", URL, "--out", "pulled", "--json")["run"])
    return {"config.yaml": (folder / "config.yaml").read_text()}


@pytest.mark.long
@pytest.mark.slow
def test_a_run_is_resumed_on_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "--data", "memory://bucket/digits", *TRAIN, "--out", URL)
    whole = without(json_of(capsys, *words[:-1], "memory://bucket/runs/whole", "--json"))

    def interrupted(engine: Any, journal: Any, state: Any) -> None:
        save(engine, journal, state)
        if state.step == engine.steps // 2:
            raise KeyboardInterrupt

    from unperturbed.training import resume

    save = resume.save
    with monkeypatch.context() as patch:
        patch.setattr(resume, "save", interrupted)
        assert main(words) == 130
    assert f"--out {URL} --resume" in capsys.readouterr().err and "checkpoints/last.pt" in published()
    assert main(words) == 2 and "already holds a run" in capsys.readouterr().err
    monkeypatch.setenv("UNPERTURBED_CACHE", str(tmp_path / "another machine"))
    assert without(json_of(capsys, *words, "--resume", "--json")) == whole


@pytest.mark.long
@pytest.mark.slow
def test_several_runs_are_read_and_a_sweep_is_opened_once(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = "memory://bucket/sweep"
    words = ("sweep", "--data", "memory://bucket/digits", *TRAIN, "--over", "seed=0,1", "--suite", "apgd-ce")
    swept = json_of(capsys, *words, "--examples", "16", "--out", sweep, "--json")
    names = sorted({path.split("/")[0] for path in published(sweep) if "/" in path})
    assert len(names) == 2 and {"sweep.json", "sweep.md"} <= published(sweep) and swept
    runs = [f"{sweep}/{name}" for name in names]
    assert main(("report", *runs)) == 2
    assert "Several runs are given, one of them as memory://bucket/sweep" in capsys.readouterr().err
    assert main(("report", *runs, "--out", "page.html")) == 0 and Path("page.html").exists()
    assert main(("compare", *runs)) == 0
    assert main(("evaluate", runs[0], *EVALUATE[:-1])) == 0
    assert any(path.startswith(f"{names[0]}/evaluation") for path in published(sweep))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("evaluate", "memory://bucket/nothing"), "memory://bucket/nothing is no run folder: there is no file"),
        (("compare", "memory://bucket/nothing", "x"), "There is no run folder memory://bucket/nothing: check the"),
        (("report", "x", "--card", "memory://bucket/a.md"), "--card takes a place on this machine, not memory"),
        (("train", "--config", "memory://bucket/c.yaml"), "There is no file memory://bucket/c.yaml: check the"),
        (("train", "--config", "memory://bucket/digits"), "There is no file memory://bucket/digits: check the"),
        (("train", "--config", "hf://user/name/c.yaml"), "a run goes to a repository of the hub by"),
        (
            ("train", "--data", "memory://bucket/digits", *TRAIN, "--weights", "memory://bucket/w.pt"),
            "There is no file memory://bucket/w.pt: check the",
        ),
        (
            ("evaluate", "x", "--out", "hf://user/name"),
            "a run goes to a repository of the hub by",
        ),
        (("train", "--data", "memory://bucket/no", "--out", URL), "There are no data memory://bucket/no"),
    ],
)
def test_a_place_that_does_not_fit_is_named(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str], store: MemoryFileSystem
) -> None:
    before = store.find("/")
    assert main(words) == 2
    assert text in capsys.readouterr().err
    assert store.find("/") == before


def test_urls_are_replaced_where_they_stand(tmp_path: Path) -> None:
    words = ["evaluate-me", "--quantize", URL, f"--out={URL}", "--data", "s3://a/b", "--suite", "pgd"]
    with places.on_this_machine("evaluate", words) as local:
        assert local[0] == "evaluate-me" and local[1] == "--quantize" and local[4:] == words[4:]
        assert local[3] == f"--out={local[2]}" and Path(local[2]).name == "at"
        assert console.as_given(f"see {local[2]}/x") == f"see {URL}/x"
    assert places._positionals(words) == ["evaluate-me", URL]


def test_words_without_urls_stay_as_they_are() -> None:
    words = ["runs/at", "--out", "x", "--help"]
    with places.on_this_machine("evaluate", words) as local:
        assert local == words


def test_pull_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("pull", "memory://bucket/nothing", "--out", "x")) == 2
    assert "There is no run folder memory://bucket/nothing" in capsys.readouterr().err and not Path("x").exists()


@pytest.mark.slow
def test_functions_of_python_take_the_same_places() -> None:
    import unperturbed as un

    data = un.load_data("memory://bucket/digits")
    model = un.model_for(data, "mlp", hidden=(8,))
    trained = un.train(model, data, un.Threat("Linf", 0.1), un.methods.FGSM(), un.Recipe(epochs=1), out=URL)
    outcome = un.evaluate(trained.model, data, un.Threat("Linf", 0.1), "apgd-ce", out=f"{URL}/evaluation")
    run = un.Run.open(URL)
    (stored,) = run.results.values()
    assert stored.robust_accuracy == outcome.robust_accuracy and run.record.data == "memory://bucket/digits"
    with pytest.raises(InputError, match="another run|already holds a run"):
        un.train(model, data, un.Threat("Linf", 0.1), un.methods.FGSM(), un.Recipe(epochs=2), out=URL)


def put(store: MemoryFileSystem, file: Path, place: str) -> None:
    store.pipe_file(place, file.read_bytes())


@pytest.mark.slow
def test_weights_are_read_from_an_object_and_from_a_published_run(tmp_path: Path, store: MemoryFileSystem) -> None:
    import unperturbed as un

    data = un.load_data("memory://bucket/digits")
    first, second, loaded = (un.model_for(data, "mlp", hidden=(8,), seed=seed) for seed in range(3))
    for model in (first, second):  # the object is replaced
        un.save_weights(model, tmp_path / "w.safetensors")
        put(store, tmp_path / "w.safetensors", "/bucket/w.safetensors")
        report = un.load_weights(loaded, "memory://bucket/w.safetensors")
        assert str(report).startswith("6 tensors") and "memory://bucket/w.safetensors" in str(report).splitlines()[0]
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    trained = un.train(first, data, un.Threat("Linf", 0.1), un.methods.ERM(), un.Recipe(epochs=1), out=URL)
    un.load_weights(loaded, f"{URL}/best.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trained.model.parameters(), strict=True))
    with pytest.raises(InputError, match=f"There is no file {URL}/none.pt"):
        un.load_weights(loaded, f"{URL}/none.pt")


@pytest.mark.long
@pytest.mark.slow
def test_a_configuration_in_a_store_begins_a_run_from_weights_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], store: MemoryFileSystem
) -> None:
    place, weights = "memory://bucket/c.yaml", "memory://bucket/w.safetensors"
    words = ("--data", "memory://bucket/digits", *TRAIN, "--json")
    first = json_of(capsys, "train", *words, "--out", "first")
    put(store, Path("first/best.safetensors"), "/bucket/w.safetensors")
    Path("c.yaml").write_text(f"weights: {weights}\nrecipe: {{lr: 0.002, epochs: 1}}\n")
    put(store, Path("c.yaml"), "/bucket/c.yaml")
    words = ("--data", "memory://bucket/digits", *TRAIN[:-4], "--device", "cpu", "--config", place, "--json")
    assert main(("train", *words, "--out", "untrusted")) == 2
    assert f"The weights {weights} stand in a file, and are not downloaded" in capsys.readouterr().err
    second = json_of(capsys, "train", *words, "--trust", "--out", "second")
    config = Path("second/config.yaml").read_text()
    assert f"weights: {weights}" in config and "lr: 0.002" in config and second["epochs"] == 1 != first["epochs"]
    given = json_of(capsys, "train", *words, "--weights", weights, "--out", URL)
    assert without(given) == without(second) and f"weights: {weights}" in pulled(capsys)["config.yaml"]


@pytest.mark.slow
@pytest.mark.long
def test_figures_go_beside_a_run_or_into_it(capsys: pytest.CaptureFixture[str], store: MemoryFileSystem) -> None:
    json_of(capsys, "train", "--data", "memory://bucket/digits", *TRAIN, "--out", URL, "--json")
    before = published()
    report = ("report", URL, "--json", "--out", "memory://bucket/page.html", "--figures")
    beside = json_of(capsys, *report, "memory://bucket/figures")["figures"]
    assert beside and all(store.exists(place.removeprefix("memory:/")) for place in beside)
    assert {Path(place).suffix for place in beside} == {".svg", ".pdf", ".png"} and published() == before
    within = json_of(capsys, *report, f"{URL}/figures")["figures"]
    assert published() == before | {place.removeprefix(f"{URL}/") for place in within} and len(within) == len(beside)
