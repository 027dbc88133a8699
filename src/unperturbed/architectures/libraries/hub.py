"""Models of the Hugging Face hub, or of a folder in its form, of timm or transformers: `hf-hub:OWNER/NAME`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unperturbed.architectures.libraries import timm as timm_models
from unperturbed.architectures.libraries import transformers as transformers_models
from unperturbed.architectures.libraries.base import LibraryModel, Numbers, Size, Source, required
from unperturbed.errors import InputError, hint
from unperturbed.reading import parse_json, read_small

HUB, FOLDER = "hf-hub:", "local-dir:"
FILE = "config.json"
FROM_DATA = ("num_classes", "in_chans", "img_size", "pretrained")
"""Arguments of timm's models that follow from the data and the user's options."""


def maker(text: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model of a text."""
    place = text.removeprefix(HUB).removeprefix(FOLDER)

    def make(
        input_shape: tuple[int, ...],
        classes: int,
        pretrained: bool = False,
        image_size: Size = None,
        normalise: Numbers = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LibraryModel:
        """Return the model; its weights are downloaded only if `pretrained`, its configuration (small) always.

        With `config`, the configuration of a record, nothing is read or downloaded.
        """
        stated = _configuration(text, place) if config is None else config
        if "architecture" not in stated:
            make_there = transformers_models.maker_at(text, place)
            return make_there(input_shape, classes, pretrained, image_size, normalise, config, **options)
        timm = required("timm", text, "vision")
        name = str(stated["architecture"])
        if not timm.is_model(name):
            raise InputError(f"{text}: timm has no model {name!r}. {hint(name, timm.list_models())}")
        weights = dict(stated.get("pretrained_cfg") or stated)
        recorded = stated.get("model_args") or {}
        settings = {**{key: value for key, value in recorded.items() if key not in FROM_DATA}, **options}
        arguments = {
            "input_shape": list(input_shape),
            "classes": classes,
            "pretrained": pretrained,
            **(options if pretrained else settings),  # with weights, timm reads the others itself
        }
        described = {key: weights[key] for key in ("input_size", "fixed_input_size") if key in weights}
        kept = {"architecture": name, "model_args": settings, **described}
        model = timm_models.made(text, text if pretrained else name, weights, arguments, image_size, normalise)
        record = {key: value for key, value in model.init_args.items() if key not in settings}
        model.init_args = {**record, "config": kept}
        return model

    return make


def _configuration(text: str, place: str) -> Mapping[str, Any]:
    if text.startswith(FOLDER):
        path = Path(place) / FILE
    else:
        hub = required("huggingface_hub", text, "hub")
        try:
            path = Path(hub.hf_hub_download(place, FILE))
        except Exception as error:  # of many kinds: no such id, no network, no access
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"The configuration of {text} could not be fetched ({reason}).") from error
    content = parse_json(read_small(path), path)
    if not isinstance(content, Mapping) or not {"architecture", "model_type"} & content.keys():
        raise InputError(
            f"{path} describes no model of timm (an entry `architecture`) or transformers (`model_type`), but has the "
            f"entries {json.dumps(sorted(content))[:200]}."
        )
    return content


HUB_MODELS: Source = Source(
    "hf-hub",
    "a model of the Hugging Face hub: hf-hub:OWNER/NAME, or in a folder: local-dir:FOLDER",
    fits=lambda text: text.startswith((HUB, FOLDER)),
    maker=maker,
    is_plain=lambda text, options: "config" in options,
)
