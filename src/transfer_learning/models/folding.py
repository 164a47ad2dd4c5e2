"""Folds batch norms of layers that never change into the convolutions before them: fewer passes over the maps."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from transfer_learning.models.hooks import forward_hooks

TOLERANCE = 1e-3


@torch.no_grad()
def fold_batch_norms(layers: nn.Sequential, image_size: int) -> nn.Sequential:
    """The layers with each batch norm folded into the convolution whose output it gets, if nothing else gets it.

    Each is `torch.nn.utils.fuse_conv_bn_eval`. A pass of an image of noise shows the pairs. A second one checks the
    result: if an output differs by more than `TOLERANCE` times the largest output, nothing is folded.

    Args:
        layers: images (N, 3, image_size, image_size) float in [0, 1] -> any float tensor. They are not changed.
        image_size: side of the images in pixels.

    Returns:
        New layers in the mode of `layers`, or `layers` if nothing can be folded.
    """
    if not any(isinstance(layer, _BatchNorm) for layer in layers.modules()):
        return layers
    image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    folded = copy.deepcopy(layers).eval()
    pairs, expected = _pairs(folded, image)
    if not pairs:
        return layers
    names = {layer: name for name, layer in folded.named_modules()}
    for convolution, norm in pairs:
        folded.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        folded.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))  # timm's norms have their activation
    error = (folded(image) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    return folded.train(layers.training) if image.is_meta or error < TOLERANCE else layers  # meta: only shapes


def _pairs(layers: nn.Module, image: torch.Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], torch.Tensor]:
    """The convolutions and the batch norms that alone get their outputs, and the output for the image."""
    convolutions: list[tuple[torch.Tensor, nn.Conv2d]] = []  # with their outputs
    uses: list[tuple[torch.Tensor, nn.Module]] = []  # the inputs of each norm and of each layer without children

    def after(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            convolutions.append((output, layer))
        if isinstance(layer, nn.BatchNorm2d) or not list(layer.children()):
            uses.extend((each, layer) for each in inputs if isinstance(each, torch.Tensor))

    with forward_hooks((layer, after) for layer in layers.modules()):
        result = layers(image)
    pairs = []
    for output, convolution in convolutions:
        users = [layer for value, layer in uses if value is output]
        if len(users) == 1 and isinstance(users[0], nn.BatchNorm2d) and users[0].running_mean is not None:
            pairs.append((convolution, users[0]))
    once = [layer for pair in pairs for layer in pair]
    return [pair for pair in pairs if all(once.count(layer) == 1 for layer in pair)], result
