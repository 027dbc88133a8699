"""The example of Ray Train: two workers on two nodes train like one process, and the same command resumes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.simulated_nodes import LOOPBACK, Cluster
from safetensors.torch import load_file

import unperturbed as un
from unperturbed import runs
from unperturbed.architectures.small_cnn import SmallCNN

pytest.importorskip("ray.train", reason="needs ray[train]", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples" / "clusters"
SCRIPT = """
import sys
from pathlib import Path
import ray
import ray_train

ray.cloudpickle.register_pickle_by_value(ray_train)  # as if it was the program itself: the nodes lack its folder
ray.init(address=sys.argv[2])
for epochs in (1, 2):
    ray_train.train_on(2, "digits", Path(sys.argv[1]) / str(epochs), epochs=epochs, batch_size=128, precision="64")
ray_train.train_on(2, "digits", Path(sys.argv[1]) / "2", epochs=2, batch_size=128, precision="64")
"""
"""The last call is of a finished run, and changes nothing."""


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_of_the_example_train_like_one_process(tmp_path: Path) -> None:
    folders = (str(Path(str(un.__file__)).parents[1]), str(EXAMPLES), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, **LOOPBACK, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    cluster = Cluster()
    try:
        words = (sys.executable, "-c", SCRIPT, str(tmp_path), cluster.address)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    finally:
        cluster.stop()
    assert done.returncode == 0, done.stderr
    for epochs in (1, 2):
        data = un.load_data("digits")
        torch.manual_seed(0)
        model = SmallCNN(tuple(data.train.shape), classes=len(data.classes))
        recipe = un.Recipe(epochs=epochs, batch_size=128, precision="64")
        un.train(model, data, un.Threat("Linf", 0.1), un.AT(), recipe, out=tmp_path / f"one {epochs}", device="cpu")
        for name in (runs.MODEL, runs.BEST):
            expected, found = (load_file(tmp_path / place / name) for place in (f"one {epochs}", str(epochs)))
            assert expected.keys() == found.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")
    line = runs.read_jsonl(tmp_path / "2" / runs.METRICS)
    assert [entry["epoch"] for entry in line] == [1, 2]
