"""What every network is: a frozen part, then a trainable part. Where one ends and the other begins is the cut."""

import hashlib

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

    @property
    def key(self) -> str | None:
        """SHA-256 (hex) of the layers as they print themselves and of all their numbers; None where there are no weights.

        With images and precision that is all that outputs depend on, unless a layer's own code is changed.
        """
        if not list(self.parameters()):
            return None
        digest = hashlib.sha256(repr(self).encode())
        for name, value in [*self.named_parameters(), *self.named_buffers()]:
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


class Network(nn.Module):
    """A frozen part followed by a trainable part: images (N, 3, H, W) float in [0, 1] -> logits (N, 1) or (N, C).

    Args:
        frozen: what one image passes with the same result every epoch; empty where everything is trained.
        trainable: the rest.
        arguments: the plain keyword arguments with which a checkpoint builds this network again.
        frozen_source: what to load the frozen part from again; None if a checkpoint must keep it (`weights.Source`).
    """

    head_epochs = 0  # epochs in which the layers of `pretrained` wait while the head learns
    lr_share = 1.0  # of the learning rate, for those layers

    def __init__(self, frozen: Frozen, trainable: nn.Sequential, arguments: dict, frozen_source=None):
        super().__init__()
        self.frozen = frozen
        self.trainable = trainable
        self.arguments = arguments
        self.frozen_source = frozen_source

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trainable(self.frozen(images))

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The trained parameters that begin at random, and those that begin pretrained."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad], []


def outputs_for(num_classes: int) -> int:
    """Two classes need one logit, that of the second class; more need one each."""
    return 1 if num_classes == 2 else num_classes


def dense_layers(
    inputs: int, dense: list[int], dropout: float, outputs: int, layer_norm: bool = False
) -> list[nn.Module]:
    """Flatten, a layer norm if asked, dense layers with ReLU and dropout, the logits. Without hidden layers dropout is on the inputs."""
    layers = [nn.Flatten(), nn.LayerNorm(inputs)] if layer_norm else [nn.Flatten()]
    for width in dense:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    if dropout and not dense:
        layers += [nn.Dropout(dropout)]
    return [*layers, nn.Linear(inputs, outputs)]


def keras_init(module: nn.Module) -> None:
    """Keras's starting point, for `Module.apply`: Glorot-uniform weights, zero biases."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
