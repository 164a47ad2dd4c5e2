"""Backbones: pretrained networks as named blocks. `provider/NAME` is the backbone NAME of a provider.

A provider is a module of this package with functions like `input_spec` and `create` below; the default is torchvision.
"""

import difflib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from torch import nn

from transfer_learning.models.weights import WeightsSource, resolve_weights_file
from transfer_learning.utilities.errors import ArgumentError, UserError


class InputSpec(NamedTuple):
    """The input that weights expect."""

    weights: str  # the full name of the weights
    image_size: int  # side in pixels
    interpolation: str  # "bilinear", "bicubic" or another one of `Preprocessing`'s
    mean: tuple[float, ...]  # of each channel, for images in [0, 1]
    std: tuple[float, ...]
    crop_pct: float = 1.0  # how much of each side is kept, in (0, 1]; the border is cut off


class Backbone(NamedTuple):
    """A pretrained network without its last layer."""

    blocks: dict[str, nn.Module]  # in order, by name; {"body": ...} if the network is no chain of blocks
    input_spec: InputSpec
    norm: nn.Module | None = None  # what follows global pooling
    source: WeightsSource | None = None  # None if the weights are random
    pool: nn.Module | None = None  # turns the last block's output into features; None is global average pooling


def input_spec(backbone: str, weights: str | None) -> InputSpec:
    """The input that the weights expect; they are as in `create`. Raises ArgumentError for an unknown backbone."""
    provider, name = _provider(backbone)
    return provider.input_spec(name, resolve_weights_file(name, weights))


def create(backbone: str, weights: str | None, image_size: int, sha256: str | None = None) -> Backbone:
    """Builds a backbone with its weights.

    Args:
        backbone: `provider/NAME`, or a name of torchvision's.
        weights: a name that the provider knows, a file with a state_dict in its layout, a folder that has such a file
            named after the backbone (see `weights.resolve_weights_file`), or None for random weights.
        image_size: side of the images in pixels.
        sha256: what the weights' file must hash to; None accepts any.

    Raises:
        UserError: no such backbone; weights that are missing, unreadable or of another network; an image size.
    """
    provider, name = _provider(backbone)
    return provider.create(name, resolve_weights_file(name, weights), image_size, sha256)


def _provider(backbone: str) -> tuple[ModuleType, str]:
    provider, slash, name = backbone.rpartition("/")
    module = f"{__name__}.{provider or 'torchvision'}"
    if slash and not (provider.isidentifier() and find_spec(module)):
        raise ArgumentError("backbone", backbone, f"there is no provider {provider!r} of backbones.")
    try:
        return import_module(module), name
    except UserError as error:  # its library is not installed
        raise ArgumentError("backbone", backbone, str(error)) from error


def no_such_network(provider: str, name: str, known: Sequence[str]) -> str:
    """The message about a name that a provider does not know: the nearest names."""
    near = difflib.get_close_matches(name, known, n=5)
    return f"no such network in {provider}; " + (f"did you mean {' or '.join(near)}?" if near else "see its list.")
