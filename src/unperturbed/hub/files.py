"""The files of a run folder that are shared: weights, record and results, and nothing else."""

import os
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.runs.files import BEST, CONFIG, METRICS, MODEL, RESULT

CARD = "README.md"
ROOT = (CONFIG, BEST, MODEL, RESULT, METRICS, "audit.json")
"""Files at the top of a run folder; `diagnosis*.json` are shared, too."""
EVALUATION = "evaluation"
SUFFIXES = (".json", ".parquet", ".safetensors")
"""Suffixes of the shared files below `EVALUATION`: summaries, tables of examples and perturbed inputs."""
PATTERNS = (*ROOT, "diagnosis*.json", *(f"{EVALUATION}/*{suffix}" for suffix in SUFFIXES))
"""The shared files for the hub's client."""


def is_shared(path: str) -> bool:
    """Tell whether a relative path with slashes names a shared file.

    Hidden files are not shared, and a path never leads out of the folder.
    """
    parts = path.split("/")
    if any(not part or part.startswith(".") or "\\" in part or not part.isprintable() for part in parts):
        return False
    if len(parts) == 1:
        return path in ROOT or (path.startswith("diagnosis") and path.endswith(".json"))
    return parts[0] == EVALUATION and path.endswith(SUFFIXES)


def shared_files(folder: Path) -> dict[str, Path]:
    """Return the shared files of a run folder by their relative path, in order.

    Raises:
        InputError: if one of them is a link out of the folder, or the folder of the evaluations holds such a link.
    """
    files = dict[str, Path]()
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            shared = is_shared(relative) or (name in folders and relative.split("/")[0] == EVALUATION)
            if shared and path.is_symlink():
                raise InputError(
                    f"{path} is a link to {path.resolve()}, and links are not shared: put the file itself there."
                )
            if is_shared(relative) and path.is_file():
                files[relative] = path
    return dict(sorted(files.items()))
