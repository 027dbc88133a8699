"""Options of options: `--method awp --method.method trades --method.method.beta 3`, from text to objects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_origin

from unperturbed.architectures.by_name import maker_of
from unperturbed.catalogue import NOUNS, expand, short
from unperturbed.errors import InputError, hint
from unperturbed.imports import OWN, Trust, check_argument, dotted, follow, is_class_of, is_function, may_make
from unperturbed.specs.parameters import ABSENT, BASES, Parameter, convert, folder_of, parameters_of, takes_anything

MODULE = "torch.nn.Module"


@dataclass
class Tree:
    """The value of an option (or ABSENT), and the options below it."""

    value: object = ABSENT
    options: dict[str, "Tree"] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: object) -> "Tree":
        """Return the tree of a name, an import path, or a mapping with `class_path` and `init_args`."""
        tree = cls()
        tree.put([], spec)
        return tree

    def put(self, keys: list[str], value: object) -> None:
        """Set the option at `keys`; a mapping sets the options below it (class_path and init_args as usual)."""
        node = self
        for key in keys:
            node = node.options.setdefault(key, Tree())
        if not isinstance(value, Mapping):
            node.value = value
            return
        for key, below in value.items():
            if key == "class_path":
                node.value = below
            elif key == "init_args":
                node.put([], below)
            else:
                node.put([str(key)], below)

    def under(self, overlay: "Tree") -> "Tree":
        """Return this tree overridden by `overlay`; a different value at a node drops the options below it."""
        if overlay.value is not ABSENT and overlay.value != self.value:
            return overlay
        options = dict(self.options)
        for key, node in overlay.options.items():
            options[key] = options[key].under(node) if key in options else node
        return Tree(self.value, options)

    def plain(self) -> object:
        """Return the original value or mapping."""
        return {key: node.plain() for key, node in self.options.items()} if self.options else self.value


@dataclass(frozen=True)
class Spec:
    """A class (or function) and its arguments, which may be specs."""

    target: Callable[..., object]
    arguments: Mapping[str, object]

    def build(self) -> Any:
        """Call the class with its arguments."""
        return self.target(**{name: _built(value) for name, value in self.arguments.items()})


def _built(value: object) -> object:
    if isinstance(value, Spec):
        return value.build()
    return tuple(map(_built, value)) if isinstance(value, tuple) else value


def choose(
    tree: Tree,
    folder: str,
    option: str,
    default: object = ABSENT,
    filled: Iterable[str] = (),
    trust: Trust = OWN,
) -> Spec:
    """Return the class and arguments of a tree.

    Without a name, the tree's options replace those of the object `default`. An option that is a parameter of the
    class's maximiser, but not of the class, is passed to it: `--method at --method.steps 10` sets the steps of the
    default maximiser of `at` and keeps its other settings. `filled` names parameters that will be given later; `trust`
    decides which import paths are followed (by default all).

    Raises `InputError` for unknown names and options (with the nearest), values of a wrong type, and missing ones.
    """
    if tree.value is ABSENT and (default is ABSENT or default is None):
        first = next(iter(tree.options), "...")
        raise InputError(f"--{option}.{first} is an option of --{option}, which is not named: add it.")
    start = spec_of(default) if tree.value is ABSENT else Spec(_target(tree, folder, option, trust), {})
    parameters = parameters_of(start.target)
    arguments = dict(start.arguments)
    passed_on = {}
    for key, below in tree.options.items():
        check_argument(key, below.plain(), path_of(start.target), f"--{option}.{key}", trust)
        if key in parameters:
            arguments[key] = _argument(below, parameters[key], f"{option}.{key}", trust)
        elif takes_anything(start.target):
            arguments[key] = convert(below.plain(), Any, f"{option}.{key}", trust)
        else:
            passed_on[key] = below
    if passed_on:
        arguments["maximiser"] = _passed_on(passed_on, start.target, arguments, option, trust)
    for name, parameter in parameters.items():
        if parameter.default is ABSENT and name not in arguments and name not in filled:
            raise InputError(f"--{option} {_label(start.target)} needs a value: give --{option}.{name}.")
    return Spec(start.target, arguments)


def _passed_on(
    options: Mapping[str, Tree],
    target: Callable[..., object],
    arguments: Mapping[str, object],
    option: str,
    trust: Trust,
) -> Spec:
    """Return the maximiser of a class with these options, which the class does not have."""
    parameters = parameters_of(target)
    inner = arguments.get("maximiser", parameters["maximiser"].default if "maximiser" in parameters else ABSENT)
    for key in options:
        if key not in _reachable(inner):
            names = [*parameters, *_reachable(inner)]
            raise InputError(f"--{option} has no option {key!r} for {_label(target)}. {hint(key, names)}")
    return choose(Tree(ABSENT, dict(options)), "maximise", f"{option}.maximiser", inner, trust=trust)


def _target(tree: Tree, folder: str, option: str, trust: Trust) -> Callable[..., object]:
    """Return the class or function of a name; raises `InputError` if it does not belong to the folder."""
    value = tree.value
    if folder == "architectures" and (make := maker_of(str(value), [*tree.options], f"--{option}", trust)) is not None:
        return make
    path = expand(str(value), folder, f"--{option}")
    ours = OWN if path != dotted(str(value)) else trust  # a short name
    target: Any = follow(path, f"--{option}", ours)
    base: Any = follow(BASES.get(folder, MODULE), option, OWN)
    fits = is_class_of(target, base) if folder in BASES else may_make(target, base, path, ours)
    if not fits:
        expected = f"a subclass of {BASES[folder]}" if folder in BASES else "a class or function that makes a model"
        raise InputError(f"--{option}: {value} is not {expected}, so it is no {NOUNS[folder]}.")
    factory: Callable[..., object] = target
    return factory


def _argument(tree: Tree, parameter: Parameter, option: str, trust: Trust) -> object:
    if isinstance(tree.value, Sequence) and get_origin(parameter.annotation) is tuple:
        inner = folder_of(parameter.annotation)
        if inner is not None and not isinstance(tree.value, str):
            return tuple(choose(Tree.of(part), inner, option, trust=trust) for part in tree.value)
    if parameter.is_called and isinstance(tree.value, str):
        value: Any = follow(tree.value, f"--{option}", trust)
        if is_class_of(value, parameter.annotation):
            known = parameters_of(value)
            for key in tree.options:
                if key not in known:
                    raise InputError(f"--{option} has no option {key!r} for {_label(value)}. {hint(key, known)}")
            settings = {
                key: _argument(part, known[key], f"{option}.{key}", trust) for key, part in tree.options.items()
            }
            return Spec(value, settings)
        if not is_function(value):
            raise InputError(f"--{option}: {tree.value} is no function of the kind {parameter.annotation.__name__}.")
        return value
    if parameter.folder is None or (tree.value is None and not tree.options):
        return convert(tree.plain(), parameter.annotation, f"--{option}", trust)
    return choose(tree, parameter.folder, option, parameter.default, trust=trust)


def spec_of(instance: object) -> Spec:
    """Return the spec of an object, from its attributes with the names of parameters."""
    if isinstance(instance, Spec):
        return instance
    attributes = {name: getattr(instance, name) for name in parameters_of(type(instance)) if hasattr(instance, name)}
    return Spec(type(instance), attributes)


def _reachable(maximiser: object) -> list[str]:
    """Return the options of a maximiser, and of its inner maximisers."""
    if maximiser is ABSENT or maximiser is None:
        return []
    spec = spec_of(maximiser)
    parameters = parameters_of(spec.target)
    inner = spec.arguments.get("maximiser", parameters["maximiser"].default if "maximiser" in parameters else ABSENT)
    return [*parameters, *_reachable(inner)]


def _label(target: Any) -> str:
    return short(path_of(target))


def path_of(target: Any) -> str:
    """Return the dotted import path of a class or function."""
    return f"{target.__module__}.{target.__qualname__}"
