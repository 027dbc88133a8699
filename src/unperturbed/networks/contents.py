"""Descriptions of objects that a network may hold: a short text, and the objects inside."""

import enum
import functools
import hashlib
import inspect
import io
import logging
import random
import re
import sys
import threading
import types
import warnings
import weakref
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from unperturbed.networks.code import (
    Child,
    Unseen,
    code_hash,
    origin,
    origin_of_file,
    origin_of_function,
    parts_of_class,
    parts_of_function,
    source_hash,
)

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range, slice)
_NAMES = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, torch.Size)
_HARMLESS = (
    *(logging.Logger, logging.LoggerAdapter, torch.utils.hooks.RemovableHandle, threading.Thread),
    *(type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event),
)
_RANDOM = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""Sources of random numbers, whose state changes with every draw."""
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
)
_FOREIGN = ("ctypes", "_ctypes", "_cffi_backend", "cffi")
_SAVING = frozenset(name for name in vars(nn.Module()) if "state_dict" in name)
_HOOKS = frozenset(name for name in vars(nn.Module()) if "_hooks" in name)
"""Attributes of torch's modules: hooks by numbers that torch gives in the order of a process."""
_MANGLED = re.compile(rb"[./]?___torch_mangle_\d+")


class Indescribable(Exception):
    """An object whose influence on the outputs cannot be determined."""


def plain(value: object) -> str | None:
    """Return a text for a value without parts; None for any other value."""
    if type(value) in _PLAIN:
        text = repr(value)
        return f"{type(value).__name__} {text if len(text) < 200 else _sha(text.encode(errors='surrogatepass'))}"
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return f"{value.dtype} {value.tobytes().hex()}"
    if isinstance(value, _NAMES):
        return str(value)
    if isinstance(value, (_HARMLESS, _RANDOM)):
        return type(value).__qualname__
    return None


def opened(value: Any) -> tuple[str, Iterator[Child]]:
    """Return a text for an object, and the objects inside with their steps on the path."""
    for kind, opened in _OPENED.items():
        if isinstance(value, kind):
            return opened(value)
    return _object(value)


def _tensor(value: Tensor) -> tuple[str, Iterator[Child]]:
    if value.device.type == "meta" or nn.parameter.is_lazy(value):
        raise Indescribable("a tensor without values")
    tensor = value.detach()
    text = f"{type(value).__qualname__} {tuple(tensor.shape)} {tensor.dtype} {tensor.layout}"
    inner = list[Child]()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        scheme = tensor.qscheme()
        per_tensor = scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric)
        scale = (tensor.q_scale(), tensor.q_zero_point()) if per_tensor else (
            tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), tensor.q_per_channel_axis())  # fmt: skip
        inner.append((".scale", scale))
        tensor = tensor.int_repr()
    if type(value) not in (Tensor, nn.Parameter):
        inner.append((".class", type(value)))
    inner += _attributes(value)
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous().flatten()
    return f"{text} {_sha(tensor.view(torch.uint8).numpy())}", iter(inner)


def _array(value: np.ndarray) -> tuple[str, Iterator[Child]]:
    text = f"{type(value).__qualname__} {value.shape} {value.dtype}"
    if value.dtype.hasobject:
        return text, iter([("[:]", value.tolist())])
    inner: list[Child] = [] if type(value) is np.ndarray else [(".mask", np.asarray(np.ma.getmaskarray(value)))]
    return f"{text} {_sha(np.ascontiguousarray(value).tobytes())}", iter(inner)


def _module(value: nn.Module) -> tuple[str, Iterator[Child]]:
    if type(value).__module__.startswith("torch._dynamo") and hasattr(
        value, "_orig_mod"
    ):  # compiled: its outputs are those of the network inside
        return "compiled", iter([("._orig_mod", value._orig_mod)])
    names = {name: part for name, part in vars(value).items() if name not in _SAVING}
    kind: list[Child] = [(".class", type(value))]
    text = type(value).__qualname__
    if isinstance(value, torch.fx.GraphModule):
        text, kind = f"GraphModule {_sha(value.code.encode())}", []
        names = {name: part for name, part in names.items() if name not in ("_graph", "_code", "_tracer_cls", "meta")}
    hooked = {name: _in_order(name, part, names) if name in _HOOKS else part for name, part in names.items()}
    return text, iter([*kind, *((f".{name}", part) for name, part in sorted(hooked.items()))])


def _in_order(name: str, hooks: Any, names: Mapping[str, Any]) -> Any:
    """Return the hooks of a module, or their flags, in order and without torch's numbers of them."""
    if not isinstance(hooks, dict):
        return hooks
    of = next(
        (known for suffix in ("_with_kwargs", "_always_called") if (known := name.removesuffix(suffix)) != name), ""
    )
    return [number in hooks for number in names.get(of, ())] if of else list(hooks.values())


def of_the_process() -> Iterator[Child]:
    """Yield what every network of a process depends on: torch's hooks for all modules, its default type, patches."""
    for name in ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_hooks"):
        yield f".{name}", list(getattr(hooks, name, {}).values())
    yield ".default_dtype", torch.get_default_dtype()
    for place in (torch, nn.functional, Tensor):
        for name, value in vars(place).items():
            if isinstance(value, types.FunctionType) and origin_of_function(value) == "user":
                yield f".{place.__name__}.{name}", value


def _scripted(value: Any) -> tuple[str, Iterator[Child]]:
    """Describe TorchScript by its saved form, without debug records and numbers in the order of calls."""
    with warnings.catch_warnings(action="ignore"):
        buffer = io.BytesIO(value.save_to_buffer())
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer) as archive:
        for name in sorted(archive.namelist()):
            step = name.partition("/")[2]
            if not step.endswith((".debug_pkl", "serialization_id")) and "traced_inputs" not in step:
                content = _MANGLED.sub(b"", archive.read(name))
                digest.update(_MANGLED.sub(b"", step.encode()) + content)
    return f"TorchScript {digest.hexdigest()}", iter(())


def _function(value: types.FunctionType) -> tuple[str, Iterator[Child]]:
    original = getattr(value, "_torchdynamo_orig_callable", None)
    if original is not None and origin_of_file(value.__code__.co_filename) == "known":
        return "compiled", iter([("._torchdynamo_orig_callable", original)])
    source = origin_of_function(value)
    if source == "package":  # without decorators that check types
        value = inspect.unwrap(value)
        return f"{value.__module__}.{value.__qualname__} {source_hash(value.__module__)}", parts_of_function(value)
    text = f"{value.__module__}.{value.__qualname__}" if source == "known" else code_hash(value.__code__)
    return text, parts_of_function(value)


def _built_in(value: Any) -> tuple[str, Iterator[Child]]:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    owner = getattr(value, "__self__", None)
    module = getattr(value, "__module__", None)
    if isinstance(module, str) and origin(module) != "known":
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            raise Indescribable("compiled code without a file")
        return f"{name} {_sha(Path(file).read_bytes())}", iter(())
    inner = [] if owner is None or isinstance(owner, types.ModuleType) else [(".self", owner)]
    return f"built in {name}", iter(inner)


def _class(value: type) -> tuple[str, Iterator[Child]]:
    name, source = f"class {value.__qualname__}", origin(value.__module__)
    if source == "package":
        return f"{value.__module__}: {name} {source_hash(value.__module__)}", parts_of_class(value)
    return (f"{value.__module__}: {name}" if source == "known" else name), parts_of_class(value)


def _python_module(value: types.ModuleType) -> tuple[str, Iterator[Child]]:
    if origin(value.__name__) != "user":
        return f"module {value.__name__} {getattr(value, '__version__', '')}", iter(())
    inner = ((f".{name}", part) for name, part in sorted(vars(value).items()) if not name.startswith("__"))
    return f"module {value.__name__}", (child for child in inner if not isinstance(child[1], types.ModuleType))


def _mapping(value: Mapping[Any, Any]) -> tuple[str, Iterator[Child]]:
    inner = list[Child]()
    pairs = dict.items(value) if isinstance(value, dict) else value.items()  # a derived class may tell others
    for number, (key, part) in enumerate(pairs):
        text = plain(key)
        inner.append((f"[{number}: {text}]", part))
        if text is None:
            inner.append((f"[{number}].key", key))
    return f"{type(value).__qualname__} of {len(inner)}", iter([*inner, *_attributes_of(value)])


def _sequence(value: Any) -> tuple[str, Iterator[Child]]:
    base = next(kind for kind in (list, tuple, deque) if isinstance(value, kind))
    parts = list(base.__iter__(value))  # a derived class may tell others
    kind = f"{type(value).__qualname__} of {len(parts)}"
    if parts and all(type(part) in _PLAIN for part in parts):
        return f"{kind}: {_sha(repr(parts).encode(errors='surrogatepass'))}", _attributes_of(value)
    return kind, iter([*((f"[{number}]", part) for number, part in enumerate(parts)), *_attributes_of(value)])


def _set(value: AbstractSet[Any]) -> tuple[str, Iterator[Child]]:
    texts = [plain(part) for part in value]
    described = sorted(text for text in texts if text is not None)
    composite = [part for part, text in zip(value, texts, strict=True) if text is None]
    if len(composite) > 1:  # a set, whose order differs between processes
        composite.sort(key=lambda part: (type(part).__qualname__, getattr(part, "__qualname__", "")))
    inner = ((f"[{number}]", part) for number, part in enumerate(composite))
    return f"{type(value).__qualname__}: {_sha(repr(described).encode())}", inner


def _attributes_of(value: object) -> Iterator[Child]:
    """Return class and attributes of an object of a class derived from a container."""
    if type(value).__module__ not in ("builtins", "collections", "types"):
        yield ".class", type(value)
        yield from _attributes(value)


def _attributes(value: object) -> Iterator[Child]:
    yield from ((f".{name}", part) for name, part in sorted(getattr(value, "__dict__", {}).items(), key=_by_name))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _by_name(pair: tuple[Any, Any]) -> str:
    return str(pair[0])


def _object(value: Any) -> tuple[str, Iterator[Child]]:
    """Describe any other object by its class and attributes or, without Python attributes, by its copy protocol."""
    kind = type(value)
    if kind.__module__.partition(".")[0] in _FOREIGN:
        raise Indescribable("compiled code outside Python")
    if kind.__module__.startswith("torch._ops"):
        return str(value), iter(())
    inner = list(_attributes(value))
    if not _is_of_python(kind):
        try:
            copied = value.__reduce_ex__(4)
        except Exception as error:
            raise Indescribable(f"it cannot be copied: {error}") from error
        if isinstance(copied, str):
            return f"{kind.__qualname__} {copied}", iter([(".class", kind), *inner])
        _, arguments, state, items, pairs = (*copied, *[None] * 5)[:5]
        rest = (state, list(items or ()), list(pairs or ()))
        inner += [(".arguments", tuple(part for part in arguments if part is not kind)), (".state", rest)]
    return kind.__qualname__, iter([(".class", kind), *inner])


def _is_of_python(kind: type) -> bool:
    """Tell whether objects of a class consist of attributes only, without hidden parts."""
    of_python = all(part is object or part.__flags__ & (1 << 9) for part in kind.__mro__)  # made by a class statement
    names = [vars(part).get("__slots__", ()) for part in kind.__mro__]
    slots = sum(1 if isinstance(part, str) else len(tuple(part)) for part in names)
    return of_python and kind.__basicsize__ <= object.__basicsize__ + 8 * (2 + slots)


def _unseen(value: Unseen) -> tuple[str, Iterator[Child]]:
    raise Indescribable(value.reason)


def _sha(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


_OPENED: dict[Any, Callable[[Any], tuple[str, Iterator[Child]]]] = {
    Unseen: _unseen,
    (torch.jit.ScriptModule, torch.jit.ScriptFunction): _scripted,
    nn.Module: _module,
    Tensor: _tensor,
    np.ndarray: _array,
    types.FunctionType: _function,
    types.MethodType: lambda value: ("method", iter([(".function", value.__func__), (".self", value.__self__)])),
    functools.partial: lambda value: (
        "partial",
        iter(
            [
                (".function", value.func),
                (".arguments", value.args),
                (".keywords", value.keywords),
                *_attributes_of(value),
            ]
        ),
    ),
    (staticmethod, classmethod): lambda value: (type(value).__name__, iter([(".function", value.__func__)])),
    property: lambda value: ("property", iter([(".get", value.fget), (".set", value.fset)])),
    types.CodeType: lambda value: (code_hash(value), iter(())),
    _BUILT_IN: _built_in,
    types.GenericAlias: lambda value: (str(value), iter(())),
    type: _class,
    types.ModuleType: _python_module,
    enum.Enum: lambda value: (
        f"{type(value).__qualname__}.{value.name}",
        iter([(".class", type(value)), *_attributes(value)]),
    ),
    weakref.ref: lambda value: ("weak", iter([(".to", value())])),
    re.Pattern: lambda value: (f"pattern {value.pattern!r} {value.flags}", iter(())),
    (dict, types.MappingProxyType): _mapping,
    (list, tuple, deque): _sequence,
    (set, frozenset): _set,
}
