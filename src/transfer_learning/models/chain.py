"""Cuts a network into a chain of blocks, each of which gets nothing but the output of the one before."""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn


class Part(nn.Module):
    """A network's own methods: images -> `forward_features` -> `forward_head(..., pre_logits=True)`, or one of both.

    Args:
        network: of timm's, or one with these methods.
        steps: "features", "head" or "all".
    """

    def __init__(self, network: Any, steps: str = "all"):
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = inputs if self.steps == "head" else self.network.forward_features(inputs)
        return outputs if self.steps == "features" else self.network.forward_head(outputs, pre_logits=True)

    def extra_repr(self) -> str:
        return f"{self.steps} of {self.network.__class__.__name__}"


class Given(nn.Module):
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


class Call(NamedTuple):
    """One call of a layer in a forward pass."""

    name: str
    inputs: tuple
    keywords: dict[str, Any]
    output: Any


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
    calls, output = _record(units, lambda: network.forward_features(image))
    head_calls, _ = _record(units, lambda: network.forward_head(output, pre_logits=True))
    links: list[Call] = []
    for call in reversed(calls):
        if call.output is not output or not call.inputs or not _is_constant(call):
            break
        links.insert(0, call)
        output = call.inputs[0]
    names, in_head = [call.name for call in links], {call.name for call in head_calls}
    cuts = sorted(names.index(end) + 1 for end in ends if end in names)
    if len(cuts) < 2 or len(set(names) | in_head) < len(names) + len(in_head):
        return None
    layers = [
        Given(units[name], inputs[1:], keywords) if inputs[1:] or keywords else units[name]
        for name, inputs, keywords, _ in links
    ]
    starts = [0, *([cuts[0] - 1] if stem_apart else []), *cuts[:-1], len(layers)]
    pieces = [layers[start:end] for start, end in pairwise(starts)]
    without_head = {call.name for call in calls} - in_head
    if output is not image:  # layers of which only other methods are called belong to this part, else to the head
        pieces[0].insert(0, Part(_without(network, {*names, *in_head}), "features"))
        without_head = set(units) - in_head
    last = _without(network, without_head)
    last._parameters = {}
    blocks = [piece[0] if len(piece) == 1 else nn.Sequential(*piece) for piece in pieces if piece]
    head = Part(last, "head")
    return (blocks, head) if _is_same(nn.Sequential(*blocks, head), Part(network), images[1:]) else None


def _units(network: nn.Module, ends: Collection[str], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers, by name, without those that have one of the `ends` inside."""
    for name, layer in network.named_children():
        path = prefix + name
        if path not in ends and any(end.startswith(f"{path}.") for end in ends):
            yield from _units(layer, ends, f"{path}.")
        else:
            yield path, layer


def _record(units: dict[str, nn.Module], run: Callable[[], Any]) -> tuple[list[Call], Any]:
    """Runs, and returns the calls of the layers, without those inside of others, and the result."""
    calls: list[Call] = []
    running: list[str] = []
    handles = []
    for name, unit in units.items():

        def before(unit: nn.Module, inputs: tuple, name: str = name) -> None:
            running.append(name)

        def after(unit: nn.Module, inputs: tuple, keywords: dict, output: Any, name: str = name) -> None:
            running.pop()
            if not running:
                calls.append(Call(name, inputs, keywords, output))

        handles += [unit.register_forward_pre_hook(before), unit.register_forward_hook(after, with_kwargs=True)]
    try:
        return calls, run()
    finally:
        for handle in handles:
            handle.remove()


def _is_constant(call: Call) -> bool:
    """Whether further arguments are plain values, or tensors that no parameter has a part in."""
    values = [*call.inputs[1:], *call.keywords.values()]
    plain = (bool, int, float, str, tuple, type(None))
    return all(
        not value.requires_grad if isinstance(value, torch.Tensor) else isinstance(value, plain) for value in values
    )


def _without(network: nn.Module, removed: Collection[str]) -> Any:
    """A copy that shares all layers but the removed ones."""
    part = copy.copy(network)
    part._modules = dict(network._modules)
    part._parameters = dict(network._parameters)
    for name, layer in network.named_children():
        inside = {path.partition(".")[2] for path in removed if path.startswith(f"{name}.")}
        if inside >= {child for child, _ in layer.named_children()} and inside:
            part._modules[name] = nn.Sequential()  # may be iterated too
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
