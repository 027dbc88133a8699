"""Image classifiers of Hugging Face transformers: a type, a folder of `save_pretrained`, or an id of the hub.

`transformers:vit` has the type's usual configuration, with options such as `--model.hidden_size 64`.
`transformers:FOLDER` and `transformers:OWNER/NAME` have the configuration there. Code that lies beside a configuration
never runs.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from unperturbed.architectures.libraries.base import (
    Adapt,
    LibraryModel,
    Numbers,
    Size,
    Source,
    check_channels,
    image_shape,
    normalisation,
    numbers_of,
    required,
    size_of,
    tell,
)
from unperturbed.errors import InputError, hint

PREFIX = "transformers:"
HALF = (0.5, 0.5)
"""The normalisation of models that state none, before they are trained."""
LEFT_OUT = (
    *("architectures", "id2label", "label2id", "problem_type", "transformers_version", "_name_or_path"),
    *("dtype", "torch_dtype", "auto_map", "kernel_config", "quantization_config", "_commit_hash"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_experts_implementation"),
)
"""Entries of a configuration that a record does not need, or by which transformers would load code."""
ATTENTIONS = ("sdpa", "eager")
"""The implementations of attention, the first that a model has: named here, so that no configuration names code.

The eager one rounds to float32 in float64, too, which hides small differences.
"""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def maker(text: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model of a text."""
    return maker_at(text, text.removeprefix(PREFIX))


def maker_at(text: str, place: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model at a type, folder or id; `text` names it."""

    def make(
        input_shape: tuple[int, ...],
        classes: int,
        pretrained: bool | None = None,
        image_size: Size = None,
        normalise: Numbers = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LibraryModel:
        """Return the model; further options are entries of its configuration.

        The weights in a folder are loaded unless `pretrained` is False, those of the hub only if it is True. With
        `config`, the configuration of a record, nothing else is read.
        """
        required("transformers", text, "transformers")
        channels, *data = image_shape(input_shape, text)
        if config is None and pretrained is None:
            pretrained = any((Path(place) / name).is_file() for name in WEIGHTS)
        settings = _configuration(place, text, config, options)
        usual = size_of(getattr(settings, "image_size", None), (data[0], data[1]))
        size = size_of(image_size, usual if pretrained else (data[0], data[1]))
        if settings.num_labels != classes:
            settings.num_labels = classes
        if not pretrained and hasattr(settings, "image_size"):
            settings.image_size = size[0] if size[0] == size[1] else size
        if not pretrained and config is None and hasattr(settings, "num_channels"):
            settings.num_channels = channels
        model, new = _model(settings, place if pretrained else None, text)
        taken = getattr(settings, "num_channels", 3)
        check_channels(channels, taken, text)
        stated = None if config is not None else _stated(place)
        if stated is None and pretrained and normalise is None:
            raise InputError(
                f"{place} holds no preprocessor_config.json with the normalisation of its training: give "
                "--model.normalise MEAN,STD, or none if it saw inputs in [0, 1]."
            )
        layer = normalisation(normalise, stated or HALF, taken)
        if pretrained:
            tell(text, size, (data[0], data[1]), new, classes)
        record = {
            "input_shape": list(input_shape),
            "classes": classes,
            "pretrained": bool(pretrained),
            "image_size": list(size),
            "normalise": numbers_of(layer),
            "config": _plain(settings),
        }
        return LibraryModel(model, Adapt(taken, size), layer, text, record, trained=bool(pretrained) and not new)

    return make


def _configuration(place: str, text: str, config: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Any:
    """Return the configuration of a record, a type, a folder or an id, with these entries."""
    auto = required("transformers", text, "transformers").AutoConfig
    types = required("transformers.models.auto.modeling_auto", text, "transformers")
    known = dict(types.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    kind = str(config.get("model_type")) if config is not None else place
    if config is not None or (kind in known and not Path(place).is_dir()):
        if kind not in known:
            raise InputError(f"{text}: {kind!r} is no type of image classifiers of transformers. {hint(kind, known)}")
        entries = {} if config is None else {k: v for k, v in config.items() if k not in (*LEFT_OUT, "model_type")}
        _check_entries(auto.for_model(kind), options, text)
        return auto.for_model(kind, **entries, **options)
    if "/" not in place and not Path(place).is_dir():
        raise InputError(
            f"{text}: there is no folder {place}, and transformers has no image classifier of this type. "
            f"{hint(place, known)} An id of the hub is OWNER/NAME."
        )
    found = auto.from_pretrained(place, trust_remote_code=False)
    if found.model_type not in known:
        raise InputError(f"{text} is of the type {found.model_type!r}, which is no image classifier of transformers.")
    _check_entries(found, options, text)
    for name, value in options.items():
        setattr(found, name, value)
    return found


def _check_entries(settings: Any, options: Mapping[str, Any], text: str) -> None:
    for name in options:
        if not hasattr(settings, name) or name in LEFT_OUT:
            raise InputError(f"The configuration of {text} has no entry {name!r}. {hint(name, _plain(settings))}")


def _model(settings: Any, place: str | None, text: str) -> tuple[nn.Module, list[str]]:
    """Return the model with the weights of a place (None: random ones), and the names of new weights."""
    auto = required("transformers", text, "transformers").AutoModelForImageClassification
    if place is None:
        return _with_attention(lambda **safe: auto.from_config(settings, **safe)).float(), []
    wanted = {"config": settings, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, report = _with_attention(lambda **safe: auto.from_pretrained(place, **wanted, **safe))
    mismatched = sorted({part if isinstance(part, str) else part[0] for part in report["mismatched_keys"]})
    new = sorted({*report["missing_keys"], *mismatched})
    if len(new) == len(model.state_dict()):
        raise InputError(f"{text}: none of the weights in {place} belongs to a {type(model).__name__}.")
    return model.float(), new


def _with_attention(build: Callable[..., Any]) -> Any:
    """Build the model with the first of `ATTENTIONS` that it supports; code from a repository is not run."""
    try:
        return build(trust_remote_code=False, attn_implementation=ATTENTIONS[0])
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return build(trust_remote_code=False, attn_implementation=ATTENTIONS[1])


def _stated(place: str) -> tuple[float, ...] | None:
    """Return the means and standard deviations in the preprocessor's configuration; None if it has none."""
    base = required("transformers.image_processing_base", place, "transformers")
    if "/" not in place and not Path(place).is_dir():
        return None
    try:
        settings, _ = base.ImageProcessingMixin.get_image_processor_dict(place)
    except (OSError, ValueError):
        return None
    if not settings.get("do_normalize", True):
        return 0.0, 1.0
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if mean is None or std is None:
        return None
    return tuple(map(float, (mean, std))) if isinstance(mean, int | float) else (*map(float, mean), *map(float, std))


def _plain(settings: Any) -> dict[str, Any]:
    """Return a configuration as a mapping of plain values, from which the same model is built."""
    entries: dict[str, Any] = settings.to_diff_dict()
    rest = {name: value for name, value in entries.items() if name not in LEFT_OUT}
    return {"model_type": settings.model_type, **rest, "num_labels": settings.num_labels}


def _is_plain(text: str, options: Sequence[str]) -> bool:
    return "config" in options or text.removeprefix(PREFIX).replace("-", "_").isidentifier()


TRANSFORMERS: Source = Source(
    "transformers",
    "an image classifier of transformers: transformers:vit, transformers:FOLDER, transformers:OWNER/NAME",
    fits=lambda text: text.startswith(PREFIX),
    maker=maker,
    is_plain=_is_plain,
)
