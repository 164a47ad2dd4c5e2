"""Backbones: pretrained networks as named blocks. Each provider is a module of this package.

A provider has two functions: `input_spec(name, weights)` and `create(name, weights, image_size, sha256)`, as below.
`provider/NAME` is the backbone NAME of that provider; a name without a slash is torchvision's.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import nn

from transfer_learning.models.weights import WeightsSource
from transfer_learning.utilities.errors import ArgumentError


@dataclass(frozen=True)
class InputSpec:
    """The input that weights expect.

    Attributes:
        weights: the full name of the weights.
        image_size: side of the images in pixels.
        interpolation: "bilinear" or "bicubic".
        mean, std: of each channel, for images in [0, 1].
    """

    weights: str
    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its last layer.

    Attributes:
        blocks: modules in order, by name, of which each takes the output of the one before. `{"body": ...}` if the
            network is no chain of blocks.
        input_spec: the input that the weights expect.
        norm: what follows global pooling, or None.
        source: where the weights come from; None if they are random.
    """

    blocks: dict[str, nn.Module]
    input_spec: InputSpec
    norm: nn.Module | None = None
    source: WeightsSource | None = None


def input_spec(backbone: str, weights: str | None) -> InputSpec:
    """The input that the weights expect. Raises ArgumentError for an unknown backbone."""
    provider, name = _provider(backbone)
    return provider.input_spec(name, weights)


def create(backbone: str, weights: str | None, image_size: int, sha256: str | None = None) -> Backbone:
    """Builds a backbone with its weights.

    Args:
        backbone: `provider/NAME`, or a name of torchvision's.
        weights: a name that the provider knows, a file with a state_dict in its layout, or None for random weights.
        image_size: side of the images in pixels.
        sha256: what the weights' file must hash to; None accepts any.

    Raises:
        UserError: no such backbone; weights that are missing, unreadable or of another network; an unsupported image size.
    """
    provider, name = _provider(backbone)
    return provider.create(name, weights, image_size, sha256)


def _provider(backbone: str) -> tuple[ModuleType, str]:
    provider, slash, name = backbone.rpartition("/")
    module = f"{__name__}.{provider or 'torchvision'}"
    if slash and not (provider.isidentifier() and find_spec(module)):
        raise ArgumentError("backbone", backbone, f"there is no provider {provider!r} of backbones.")
    return import_module(module), name
