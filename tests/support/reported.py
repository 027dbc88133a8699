"""Run folders with every kind of result, for the tests of reports: small images in two classes with hostile names."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

import unperturbed as un
from support.sealed import reseal
from support.toys import QUICK
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.examinations.diagnostics.margins import margins

HOSTILE = "<img src=x onerror=alert(1)>"
OTHER = "a|b`</script>"
AUDIT = {
    "verdict": "suspicious",
    "causes": ["weak suite"],
    "headline": {"value": 0.25, "low": 0.1, "high": 0.4, "n": 24},
    "explanations": [{"name": "weak suite", "meaning": "The suite misses examples.", "remedy": "Use more steps."}],
    "checks": [
        {"name": "steps", "verdict": "fail", "measured": "3 of 32", "expected": "0", "question": "Do more steps?",
         "where": "", "seconds": 1.25},
        {"name": "surface", "verdict": "pass", "measured": "a rise", "expected": "", "question": "What is the loss?",
         "where": "", "seconds": 0.5,
         "surface": {"along": [-1, 0, 1], "values": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "caption": "mean of 4"}},
    ],
    "remedies": ["more steps"],
}  # fmt: skip


def write_images(folder: Path) -> Path:
    """Write 20 training and 12 test images of each class: noise, darker in the first class."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 12)):
        for shade, name in ((90, HOSTILE), (160, OTHER)):
            place = folder / part / name.replace("/", "\u2044")
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(shade, 25, (6, 6)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02}.png")
    return folder


def write_run(folder: Path, images: Path, seed: int = 0) -> Path:
    """Train, evaluate, diagnose and audit (by a made-up file) a small network."""
    data, threat = un.load_data(str(images)), un.Threat("Linf", 0.1)
    recipe = un.Recipe(epochs=3, batch_size=8, seed=seed, alarm="off")
    model = un.model_for(data, "mlp", hidden=(8,), seed=seed)
    trained = un.train(model, data, threat, un.methods.FGSM(), recipe, out=folder)
    un.evaluate(trained.model, data, threat, QUICK, out=folder / "evaluation")
    quick = Suite("nearest", (FAB("FAB", steps=5), *QUICK.attacks), "a test")
    un.minimum_norm(trained.model, data, un.Threat("Linf", 0.2), quick, radii=[0.1], out=folder / "evaluation")
    un.diagnose(trained.model, data, threat, diagnostics=[margins], name=folder.name, out=folder / "diagnosis-a.json")
    reseal(folder / "audit.json", AUDIT)
    write_explanation(folder / "explanation")
    return folder


def write_explanation(folder: Path) -> None:
    """Write a grid of one image."""
    folder.mkdir()
    Image.new("L", (4, 4), 128).save(folder / "a.png")
    grid = {
        "title": "Input gradients",
        "columns": ["image", "gradient"],
        "rows": [{"name": HOSTILE, "images": ["a.png", None]}],
        "numbers": [{"name": "alignment", "value": 0.5, "n": 12, "low": 0.4, "high": 0.6}],
    }
    (folder / "gradients.json").write_text(json.dumps(grid))
