"""The tutorial's two networks from scratch, which differ in depth and dropout only."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from transfer_learning.models.heads import dense_layers, keras_init
from transfer_learning.models.network import Frozen, Network, num_logits
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import validated

Width = Annotated[int, Field(ge=1)]


@validated
class CNN(Network):
    """Convolutions of 3 x 3 without padding, each followed by ReLU and 2 x 2 max pooling, then dense layers.

    Args:
        num_classes: C >= 2.
        image_size: side of the images in pixels.
        channels: output channels of each convolution.
        dense: widths of the hidden dense layers.
        dropout: probability, after each hidden dense layer.

    Raises:
        ArgumentError: the image is too small for so many convolutions.
    """

    def __init__(
        self,
        num_classes: Annotated[int, Field(ge=2)],
        image_size: Annotated[int, Field(ge=1)],
        channels: Annotated[Sequence[Width], Field(min_length=1)] = (16, 64, 128),
        dense: Sequence[Width] = (512,),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        layers: list[nn.Module] = []
        size, smallest = image_size, 1
        for inputs, outputs in zip([3, *channels], channels):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            size, smallest = (size - 2) // 2, 2 * smallest + 2
        if size < 1:
            expected = f"too small for {len(channels)} convolutions, expected at least {smallest}."
            raise ArgumentError("image_size", image_size, expected)
        layers += dense_layers(channels[-1] * size * size, dense, dropout, num_logits(num_classes))
        arguments = {"channels": list(channels), "dense": list(dense), "dropout": dropout}
        arguments |= {"num_classes": num_classes, "image_size": image_size}
        super().__init__(Frozen(), nn.Sequential(*layers), arguments)
        self.apply(keras_init)
