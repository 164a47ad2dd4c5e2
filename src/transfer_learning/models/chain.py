"""Cuts a network into a chain of blocks, each of which gets nothing but the output of the one before."""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from transfer_learning.models.hooks import forward_hooks


class Part(nn.Module):
    """A network's own `forward_features`, `forward_head(..., pre_logits=True)`, or one after the other.

    Args:
        network: of timm's, or one with these methods.
        steps: "features": images -> maps or tokens; "head": these -> (N, F), what the last layer gets; "all": both.
    """

    def __init__(self, network: Any, steps: Literal["features", "head", "all"] = "all"):
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.steps != "head":
            inputs = self.network.forward_features(inputs)
        if self.steps != "features":
            inputs = self.network.forward_head(inputs, pre_logits=True)
        return inputs

    def extra_repr(self) -> str:
        return f"{self.steps} of {self.network.__class__.__name__}"


class WithArguments(nn.Module):
    """A layer with further arguments, which are the same for all images, such as rotary position embeddings."""

    def __init__(self, layer: nn.Module, positional: Sequence[Any], keywords: dict[str, Any]):
        super().__init__()
        self.layer, self.given = layer, dict[int | str, Any]()
        arguments: list[tuple[int | str, Any]] = [*enumerate(positional), *keywords.items()]
        for name, value in arguments:
            is_tensor = isinstance(value, torch.Tensor)
            self.given[name] = f"given_{name}" if is_tensor else value
            if is_tensor:
                self.register_buffer(f"given_{name}", value.detach(), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = {name: getattr(self, f"given_{name}", value) for name, value in self.given.items()}
        keywords = {name: value for name, value in values.items() if isinstance(name, str)}
        return self.layer(inputs, *(value for name, value in values.items() if name not in keywords), **keywords)

    def extra_repr(self) -> str:
        return str(self.given)


@torch.enable_grad()  # it tells which tensors depend on parameters
def chain(
    network: Any, ends: Sequence[str], images: torch.Tensor, stem_apart: bool = False
) -> tuple[list[nn.Module], nn.Module] | None:
    """Cuts a network after each of the layers `ends`.

    One pass shows which layers get exactly the output of the layer before, from the last one back. What comes before
    them, such as position embeddings that are added to patches, belongs to the first block. What follows the last end
    belongs to the last block. The blocks share the network's parameters.

    Args:
        network: with `forward_features` and `forward_head`, in evaluation mode, without its last layer.
        ends: names of layers, in order. Those that are not in the chain are left out.
        images: (N, 3, H, W) float, N >= 2. The first one is passed to find the chain, the others to check it.
        stem_apart: whether what comes before the first end is a block of its own.

    Returns:
        The blocks, and the head, which makes of the last block's output what the network's last layer gets. None if the
        network is no chain of at least two blocks.

    Raises:
        Exception: whatever the network raises for such images.
    """
    image, units = images[:1], dict(_units(network, set(ends)))
    calls, output = _calls(units, lambda: network.forward_features(image))
    modules = dict(network.named_modules())
    del modules[""]
    head_calls, _ = _calls(modules, lambda: network.forward_head(output, pre_logits=True))
    called, in_head = ({name for name, *_ in each} for each in (calls, head_calls))
    names, layers = list[str](), list[nn.Module]()
    for name, inputs, keywords, result in reversed(calls):
        if result is output and inputs:  # others are inside of layers or beside the chain
            if name in names or name in in_head or not all(map(_is_constant, [*inputs[1:], *keywords.values()])):
                return None
            names.insert(0, name)
            has_more = inputs[1:] or keywords
            layers.insert(0, WithArguments(units[name], inputs[1:], keywords) if has_more else units[name])
            output = inputs[0]
    cuts = sorted(names.index(end) + 1 for end in ends if end in names)
    if len(cuts) < 2:
        return None
    starts = [0, *([cuts[0] - 1] if stem_apart else []), *cuts[:-1], len(layers)]
    pieces = [layers[start:end] for start, end in pairwise(starts)]
    last = _without(network, {name for name in modules if not any(_is_inside(name, each) for each in in_head)})
    last._parameters = {}  # such as position embeddings, which the first block has
    head = Part(last, "head")
    # Layers that were not called are left out; or kept, since a network may use them without calling `forward`.
    for uncalled in (set(units) - called, set()):
        first = Part(_without(network, {*names, *in_head, *uncalled}), "features")
        together = [[*([] if output is image else [first]), *pieces[0]], *pieces[1:]]
        blocks = [piece[0] if len(piece) == 1 else nn.Sequential(*piece) for piece in together if piece]
        if _is_same(nn.Sequential(*blocks, head), Part(network), images[1:]):
            return blocks, head
    return None


def _is_inside(name: str, other: str) -> bool:
    """Whether one of two layers is the other one or inside of it."""
    return f"{name}.".startswith(f"{other}.") or other.startswith(f"{name}.")


def _units(network: nn.Module, ends: Collection[str], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers, by name, without those that have one of the `ends` inside."""
    for name, layer in network.named_children():
        path = prefix + name
        if path not in ends and any(end.startswith(f"{path}.") for end in ends):
            yield from _units(layer, ends, f"{path}.")
        else:
            yield path, layer


def _calls(units: dict[str, nn.Module], run: Callable[[], Any]) -> tuple[list[tuple], Any]:
    """Runs, and returns each call of the layers, (name, inputs, keyword arguments, output), and the result."""
    calls: list[tuple] = []
    hooks = [(unit, lambda _, *call, name=name: calls.append((name, *call))) for name, unit in units.items()]
    with forward_hooks(hooks, with_kwargs=True):
        return calls, run()


def _is_constant(argument: Any) -> bool:
    """Whether it is a plain value, or a tensor that no parameter has a part in."""
    if isinstance(argument, torch.Tensor):
        return not argument.requires_grad
    return isinstance(argument, (bool, int, float, str, type(None)))


def _without(network: nn.Module, removed: Collection[str]) -> Any:
    """A copy that shares all layers but the removed ones."""
    part = copy.copy(network)
    part._modules = dict(network._modules)
    part._parameters = dict(network._parameters)
    for name, layer in network.named_children():
        inside = {path.partition(".")[2] for path in removed if path.startswith(f"{name}.")}
        if inside >= {child for child, _ in layer.named_children()} and inside:
            part._modules[name] = nn.Sequential()  # empty, and no Identity: the network's code may loop over it
        elif inside:
            part._modules[name] = _without(layer, inside)
        elif name in removed:
            part._modules[name] = nn.Identity()
    return part


@torch.no_grad()
def _is_same(chained: nn.Module, network: nn.Module, images: torch.Tensor) -> bool:
    expected = network(images)
    try:
        return torch.allclose(chained.eval()(images), expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    except Exception:  # a layer is missing where the network's own code uses it
        return False
