"""The blocks of any network, and their outputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

from unperturbed.errors import RunError
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs, Model

Call = tuple[str, int]
"""The path of a module, and the number of its call within a forward, from 1."""
Hook = Callable[[nn.Module, Any, Any], Any]


@dataclass(frozen=True)
class Block:
    """A part of a network whose output is examined, by its path, which is valid in any copy of the network.

    Attributes:
        name: the path, with "#2" for a second call in the same forward; "logits" for the network itself.
        path: of the module.
        call: the number of its call in a forward, from 1.
        axis: the axis of the examples in its output.
        size: the number of output values for one example.
    """

    name: str
    path: str
    call: int
    axis: int
    size: int


def blocks(model: Model, example: Inputs) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    """Return the blocks with weights in the order of their ends, the logits last, and notes on omitted modules.

    A block is a module that is not split into its children. The network, plain `nn.Sequential`s and lists are split,
    and so is any module that contains a list of several parts (a stage, a transformer's encoder) or only wraps another
    module, unless a path bypasses the parts inside: a residual connection, parallel branches. So a residual block is a
    block, with any content. The last block's output, where it is the logits, is listed once, as "logits". An output
    that holds several tensors is represented by the first one in floating point.
    """
    three = example[torch.arange(3, device=example.device) % len(example)]
    with under_attack(model):
        parts = _parts(model, three[:1])
        with torch.no_grad():  # two batch sizes reveal the axis of the examples
            of_two, outputs = _outputs(model, three[:2], parts), _outputs(model, three, parts)
    called = {path for path, _ in outputs}
    blocks, left_out = [], [f"{path} is left out: it is never called." for path in parts if path not in called]
    logits = outputs["", 1]
    for (path, call), output in outputs.items():
        name = _name(path, call)
        if path and output is not None and logits is not None and _equal(output, logits):
            continue
        axis = _axis(of_two.get((path, call)), output)
        if isinstance(axis, str):
            left_out.append(f"{name} is left out: {axis}.")
        elif output is not None:
            blocks.append(Block(name, path, call, axis, output.numel() // 3))
    return tuple(blocks), tuple(left_out)


def features(model: Model, x: Inputs, blocks: Sequence[Block]) -> list[Tensor]:
    """Return the output of each block at x by one forward: (n, size) each, with its graph or tangents.

    The outputs are copies, since the next block may write into its input. A network that draws random numbers draws the
    same in each call. For a network under attack. Raises `RunError` if a block is not reached.
    """
    outputs = _outputs(model, x, {block.path for block in blocks})
    features = []
    for block in blocks:
        output = outputs.get((block.path, block.call))
        if output is None or output.dim() <= block.axis or output.shape[block.axis] != len(x):
            raise RunError(f"block {block.name} gave nothing for these inputs, though it did for the first ones.")
        features.append(output.movedim(block.axis, 0).reshape(len(x), -1))
    return features


def _outputs(model: Model, x: Inputs, paths: Sequence[str] | set[str]) -> dict[Call, Tensor | None]:
    """Return the outputs of these modules and of the network, "", in the order of their ends."""
    outputs: dict[Call, Tensor | None] = {}
    calls = dict.fromkeys(paths, 0)

    def recording(path: str) -> Hook:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            tensor = _first_tensor(output)
            outputs[path, calls[path]] = None if tensor is None else tensor.clone()

        return hook

    with own_randomness(0, x.device):
        _run(model, x, [(model.get_submodule(path), recording(path)) for path in {*paths, ""}])
    return outputs


def _run(model: Model, x: Inputs, hooks: Sequence[tuple[nn.Module, Hook]]) -> None:
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        model(x)


def _first_tensor(output: Any) -> Tensor | None:
    tensors = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return next(tensors, None)


def _equal(output: Tensor, logits: Tensor) -> bool:
    return output.shape == logits.shape and bool(torch.equal(output.nan_to_num(), logits.nan_to_num()))


def _axis(two: Tensor | None, three: Tensor | None) -> int | str:
    """Return the axis that is 2 and 3 long for 2 and 3 examples, or why there is none."""
    if two is None or three is None:
        return "its output holds no floating-point tensor"
    grown = [axis for axis, (a, b) in enumerate(zip(two.shape, three.shape, strict=False)) if a != b]
    if two.dim() != three.dim() or len(grown) != 1 or (two.shape[grown[0]], three.shape[grown[0]]) != (2, 3):
        shapes = f"{tuple(two.shape)} for 2 examples and {tuple(three.shape)} for 3"
        return f"its output, {shapes}, has no axis that counts the examples"
    return grown[0]


def _name(path: str, call: int) -> str:
    return ("logits" if not path else path) + (f"#{call}" if call > 1 else "")


# --- the choice of blocks
# -----------------------------------------------------------------------------------------------


def _parts(model: Model, x: Inputs) -> list[str]:
    """Return the paths of the blocks with weights, in the order of the modules."""
    order = _call_order(model, x)
    weights = set(model.parameters())
    # A class of modules is split everywhere or nowhere: a stage's first block may have no residual connection.
    closed = {type(m) for m in model.modules() if not _is_list(m) and _led_past(model, x, m, order)}

    def opened(module: nn.Module) -> bool:
        if not _children(module):
            return False
        if _is_list(module) or set(module.parameters()) == weights:
            return True
        return bool(_inside(module)) and type(module) not in closed

    def walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in _children(module):
            yield from walk(child, f"{path}{name}.") if opened(child) else [(path + name, child)]

    listed: dict[nn.Module, str] = {}
    for path, module in walk(model, ""):
        listed.setdefault(module, path)  # a module at two paths counts once
    return list(listed.values())


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the children with weights; a parametrisation of a weight is part of the module."""
    aside = "parametrizations" if parametrize.is_parametrized(module) else None
    return [(name, child) for name, child in module.named_children() if name != aside and _has_weights(child)]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_list(module: nn.Module) -> bool:
    """Tell whether a module only holds its children, or calls them one after another."""
    forward = type(module).forward
    return forward is nn.Module.forward or forward is nn.Sequential.forward


def _inside(module: nn.Module) -> list[nn.Module]:
    """Return the lists below of several parts with children, or else the single child that has all the weights."""
    children = [child for _, child in _children(module)]
    lists = [stack for child in children for stack in _stacks(child)]
    if not lists and len(children) == 1 and set(children[0].parameters()) == set(module.parameters()):
        return children
    return lists


def _stacks(module: nn.Module) -> list[nn.Module]:
    children = [child for _, child in _children(module)]
    if _is_list(module) and sum(bool(_children(child)) for child in children) >= 2:
        return [module]
    return [stack for child in children for stack in _stacks(child)]


def _call_order(model: Model, x: Inputs) -> dict[nn.Module, int]:
    """Return when each module's last call ended."""
    order: dict[nn.Module, int] = {}

    ended = count()

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        order[module] = next(ended)

    with torch.no_grad(), own_randomness(0, x.device):
        _run(model, x, [(module, hook) for module in set(model.modules())])
    return order


def _led_past(model: Model, x: Inputs, module: nn.Module, order: dict[nn.Module, int]) -> bool:
    """Tell whether the module's output depends on the input by a path that bypasses one of the parts inside."""
    return module in order and any(_depends(model, x, module, _exit(part, order)) for part in _inside(module))


def _exit(part: nn.Module, order: dict[nn.Module, int]) -> nn.Module | None:
    """Return the last called module of the list: the list itself, if it is called."""
    if part in order:
        return part
    exits = [exit_ for _, child in _children(part) if (exit_ := _exit(child, order)) is not None]
    return max(exits, key=order.__getitem__, default=None)


def _depends(model: Model, x: Inputs, module: nn.Module, cut: nn.Module | None) -> bool:
    """Tell whether the module's output has a gradient to the input when the outputs of `cut` are detached."""
    if cut is None:
        return False
    connected = []

    def cutting(_: nn.Module, inputs: Any, output: Any) -> Any:
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)

    def looking(_: nn.Module, inputs: Any, output: Any) -> None:
        connected.append(any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output)))

    with torch.enable_grad(), own_randomness(0, x.device):
        leaf = x.detach().clone().requires_grad_()
        _run(model, leaf.clone(), [(cut, cutting), (module, looking)])  # a copy: the network may write into its input
    return any(connected)
