"""The tutorial's two networks from scratch: they differ in depth and dropout only."""

from collections.abc import Sequence

from torch import nn

from transfer_learning.errors import UserError
from transfer_learning.models.network import Frozen, Network, dense_layers, keras_init, outputs_for


class CNN(Network):
    """Convolutions of 3 x 3 without padding, each with ReLU and 2 x 2 max pooling, then dense layers.

    Args:
        num_classes: C >= 2.
        image_size: side of the images in pixels.
        channels: output channels of each convolution.
        dense: widths of the hidden dense layers.
        dropout: probability, after each hidden dense layer.

    Raises:
        UserError: the image is too small for so many convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        channels: Sequence[int] = (16, 64, 128),
        dense: Sequence[int] = (512,),
        dropout: float = 0.0,
    ):
        arguments = dict(
            num_classes=num_classes, image_size=image_size, channels=list(channels), dense=list(dense), dropout=dropout
        )
        layers, size = [], image_size
        for inputs, outputs in zip([3, *channels], channels):
            layers += [nn.Conv2d(inputs, outputs, kernel_size=3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            size = (size - 2) // 2
        if size < 1:
            smallest = 1
            for _ in channels:
                smallest = 2 * smallest + 2
            raise UserError(
                f"data.image_size={image_size}: too small for {len(channels)} convolutions, expected at least {smallest}."
            )
        layers += dense_layers(channels[-1] * size * size, list(dense), dropout, outputs_for(num_classes))
        super().__init__(Frozen(), nn.Sequential(*layers), arguments)
        self.apply(keras_init)
