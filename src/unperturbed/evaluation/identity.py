"""What an evaluation is of: two of the same identity give the same results, and one goes on where the other stopped."""

import hashlib
import inspect
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.data.split import Split
from unperturbed.evaluation.subject import Subject, data_hash, device_kind, version, weights_hash, without_addresses
from unperturbed.processor import SETTING
from unperturbed.threat import Threat
from unperturbed.types import Bounds


def identity(
    model: nn.Module, subject: Subject, split: Split, threat: Threat, suite: Suite, seed: int
) -> dict[str, Any]:
    """Return versions, hashes and settings, by name."""
    return {
        "unperturbed": version(),
        "weights": weights_hash(model),
        "network": subject.network,
        "data": data_hash(split),
        "threat": str(threat),
        "bounds": _fingerprint(threat.bounds),
        "suite": suite.name,
        "attacks": settings_of(suite),
        "seed": seed,
        "precision": str(subject.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "device": device_kind(subject.device),
    }


def other_threads(job: Mapping[str, Any], subject: Subject) -> list[str]:
    """Return warnings if the job was begun with another number of threads or another MKL_CBWR."""
    if subject.device.type != "cpu":
        return []
    effect = "the last bits of what is computed may differ, and verdicts where they are ties."
    warnings, threads = list[str](), torch.get_num_threads()
    if threads != job["threads"]:
        warnings.append(f"The evaluation was begun with {job['threads']} threads and goes on with {threads}: {effect}")
    now = os.environ.get(SETTING, "")
    before = job.get("rounding", {}).get(SETTING, now)  # an earlier version did not write it down
    if before != now:
        warnings.append(
            f"The evaluation was begun with {SETTING}={before or '(unset)'} and resumes with {now or '(unset)'}: "
            f"{effect}"
        )
    return warnings


def settings_of(suite: Suite) -> str:
    """Return the attacks with their settings, and a hash of the source of the functions and classes that they name."""
    digest = hashlib.sha256()
    for attack in suite.attacks:
        values: list[Any] = [getattr(attack, each.name) for each in fields(attack)] if is_dataclass(attack) else []
        for part in (type(attack), *(each if callable(each) else type(each) for each in values)):
            with suppress(OSError, TypeError):  # built in, or typed into a prompt
                digest.update(inspect.getsource(part).encode())
    return f"{without_addresses(str(suite.attacks))} {digest.hexdigest()[:16]}"


def _fingerprint(bounds: Bounds) -> str:
    if bounds is None:
        return "none"
    low, high = bounds
    if isinstance(low, float | int) and isinstance(high, float | int):
        return ",".join(f"{bound:g}" if float(f"{bound:g}") == bound else repr(bound) for bound in (low, high))
    digest = hashlib.sha256()
    for bound in (low, high):
        digest.update(torch.as_tensor(bound, dtype=torch.float64).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
