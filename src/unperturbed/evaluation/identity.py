"""The identity of a measurement: two of the same identity have the same results, and one resumes the other."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.data.split import Split
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.evaluation.hashes import data_hash, device_kind, version, weights_hash, without_addresses
from unperturbed.networks.fingerprint import describe
from unperturbed.runs.job import UNDESCRIBED
from unperturbed.threat import Threat
from unperturbed.types import Bounds


def identity(model: nn.Module, checked_model: CheckedModel, split: Split, threat: Threat, seed: int) -> dict[str, Any]:
    """Return versions, hashes and settings, by name; `undescribed` if the hash does not cover the whole network."""
    settings = {
        "unperturbed": version(),
        "weights": weights_hash(model),
        "network": checked_model.network,
        "data": data_hash(split),
        "threat": str(threat),
        "bounds": _fingerprint(threat.bounds),
        "seed": seed,
        "precision": str(checked_model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "device": device_kind(checked_model.device),
    }
    return settings | ({UNDESCRIBED: list(checked_model.undescribed)} if checked_model.undescribed else {})


def of_suite(identity: Mapping[str, Any], suite: Suite) -> dict[str, Any]:
    """Return the identity of a measurement by a suite, with its name and the settings of its attacks."""
    doubts = [*identity.get(UNDESCRIBED, ()), *describe(suite.attacks).doubts]
    with_suite = {**identity, "suite": suite.name, "attacks": settings_of(suite)}
    return with_suite | ({UNDESCRIBED: doubts} if doubts else {})


def settings_of(suite: Suite) -> str:
    """Return the attacks with their settings, and a hash of their code and of the functions they use."""
    described = describe(suite.attacks)
    return f"{without_addresses(str(suite.attacks))} {described.hash(described)[:16]}"


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
