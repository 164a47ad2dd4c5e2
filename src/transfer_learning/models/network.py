"""What every network is: a frozen part, then a trainable part."""

import torch
from torch import nn


class Frozen(nn.Sequential):
    """Layers that training never changes: no gradient, and evaluation mode whatever the rest is in."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the trainable part keeps this output for its backward pass
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)


class Network(nn.Module):
    """A frozen part followed by a trainable part: images (N, 3, H, W) float in [0, 1] -> logits (N, 1) or (N, C).

    Args:
        frozen: what one image passes with the same result every epoch; empty where everything is trained.
        trainable: the rest.
        arguments: the plain keyword arguments with which a checkpoint builds this network again.
        frozen_source: what to load the frozen part from again; None if a checkpoint must keep it (`vgg16.Weights`).
    """

    def __init__(self, frozen: Frozen, trainable: nn.Sequential, arguments: dict, frozen_source=None):
        super().__init__()
        self.frozen = frozen
        self.trainable = trainable
        self.arguments = arguments
        self.frozen_source = frozen_source

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trainable(self.frozen(images))


def outputs_for(num_classes: int) -> int:
    """Two classes need one logit, that of the second class; more need one each."""
    return 1 if num_classes == 2 else num_classes


def dense_layers(inputs: int, dense: list[int], dropout: float, outputs: int) -> list[nn.Module]:
    """Flatten, then dense layers with ReLU and dropout, then the logits."""
    layers = [nn.Flatten()]
    for width in dense:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    return [*layers, nn.Linear(inputs, outputs)]


def keras_init(module: nn.Module) -> None:
    """Keras's starting point, for `Module.apply`: Glorot-uniform weights, zero biases."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
