"""Grad-CAM (Selvaraju et al. 2017): which places of an image speak for a class."""

from typing import Any

import torch
from torch import nn

from transfer_learning.models.hooks import forward_hooks
from transfer_learning.models.network import Network
from transfer_learning.utilities.errors import UserError


def grad_cam(network: Network, images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The network's last map before the head, its channels weighted by the mean gradient of the class's logit.

    Args:
        network: in evaluation mode.
        images: (N, 3, H, W) float in [0, 1].
        codes: the class of each image, (N,) int64. With one logit, the negated logit is that of the first class.

    Returns:
        (N, h, w) float32 >= 0, with the size of the map.

    Raises:
        UserError: the network has no such map: it is a transformer, or its maps have one pixel.
    """
    layer = _last_map_layer(network, images[:1])
    maps = torch.empty(0)

    def keep(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        nonlocal maps
        maps = output.detach().requires_grad_()
        return maps.clone()  # the next layer may work in place

    with forward_hooks([(layer, keep)]), torch.enable_grad():
        logits = _end_to_end(network, images)
        scores = logits[:, 0] * (2 * codes - 1) if logits.shape[1] == 1 else logits.gather(1, codes[:, None])
        gradients = torch.autograd.grad(scores.sum(), maps)[0]
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * maps.detach()).sum(dim=1).clamp(min=0).float()


def _end_to_end(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Logits; the layers of the frozen part run one by one, since as a whole they record no gradients."""
    with torch.compiler.set_stance("force_eager"):  # compiled layers would not call the hooks
        for layer in network.frozen:
            images = layer(images)
        return network.trainable(images)


def _last_map_layer(network: Network, image: torch.Tensor) -> nn.Module:
    """The module that is the last to return something for each place: a map (N, C, h, w), not tokens (N, T, C)."""
    found: list[tuple[nn.Module, torch.Size]] = []

    def note(layer: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim in (3, 4):
            places = output.shape[2:] if output.ndim == 4 else output.shape[1:2]
            if places.numel() > 1:
                found.append((layer, output.shape))

    with forward_hooks((layer, note) for layer in network.modules()), torch.no_grad():
        _end_to_end(network, image)
    layer, shape = found[-1] if found else (network, torch.Size())
    is_square = image.shape[2] == image.shape[3]
    if len(shape) != 4 or (is_square and shape[2] != shape[3]):  # tokens, or (N, h, w, C)
        raise UserError("Grad-CAM needs a convolutional network whose last map has more than one pixel.")
    return layer
