"""A small residual network, to be trained from scratch."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from transfer_learning.models.heads import dense_layers
from transfer_learning.models.network import Frozen, Network, num_logits
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import validated

Count = Annotated[int, Field(ge=1)]


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride).

    The block of ResNet-18 (He et al. 2015) with average pooling in the shortcut (ResNet-D, He et al. 2018).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *conv_norm(outputs, outputs, 3)
        )
        nn.init.zeros_(self.body[-1].get_parameter("weight"))  # the block begins as its shortcut (Goyal et al. 2017)
        pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*pool, *conv_norm(inputs, outputs, 1))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.activation(self.body(maps) + self.shortcut(maps))


@validated
class SmallResNet(Network):
    """A stem that divides the sides by 4, stages of residual blocks, global average pooling and a linear layer.

    Each stage after the first divides the sides by 2. The defaults have 2.8 million parameters. Images (N, 3, H, W)
    float in [0, 1] -> logits (N, 1) or (N, C).

    Args:
        num_classes, image_size: C >= 2; side of the images in pixels. Other sizes are accepted too.
        channels, blocks: output channels and number of residual blocks of each stage, equally many.
        dropout: probability, on the pooled features.
    """

    def __init__(
        self,
        num_classes: Annotated[int, Field(ge=2)],
        image_size: Count,
        channels: Annotated[Sequence[Count], Field(min_length=1)] = (32, 64, 128, 256),
        blocks: Sequence[Count] = (2, 2, 2, 2),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        if len(blocks) != len(channels):
            raise ArgumentError("blocks", list(blocks), f"expected {len(channels)} numbers, one for each of channels.")
        layers: list[nn.Module] = [*conv_norm(3, channels[0], 3, stride=2), nn.ReLU(inplace=True)]
        layers += [*conv_norm(channels[0], channels[0], 3), nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True)]
        inputs = channels[0]
        for stage, (outputs, count) in enumerate(zip(channels, blocks)):
            for block in range(count):
                layers.append(ResidualBlock(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        layers += [nn.AdaptiveAvgPool2d(1), *dense_layers(inputs, [], dropout, num_logits(num_classes))]
        arguments = {"channels": list(channels), "blocks": list(blocks), "dropout": dropout}
        arguments |= {"num_classes": num_classes, "image_size": image_size}
        super().__init__(Frozen(), nn.Sequential(*layers), arguments)


def conv_norm(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution with He's initialization, and a batch norm."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs)]
