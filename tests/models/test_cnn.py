import pytest
import torch

from transfer_learning.models.cnn import CNN
from transfer_learning.models.network import count_parameters
from transfer_learning.utilities.errors import ArgumentError

TUTORIAL = {  # arguments, parameters that Keras printed
    "basic": (dict(), 19_024_513),
    "regularised": (dict(channels=[16, 64, 128, 128], dense=[512, 512], dropout=0.3), 3_706_113),
}


@pytest.mark.parametrize("name", TUTORIAL)
def test_parameter_counts_of_the_tutorial(name):
    arguments, parameters = TUTORIAL[name]
    assert count_parameters(CNN(num_classes=2, image_size=150, **arguments)) == (parameters, 0)


@pytest.mark.parametrize("num_classes, outputs", [(2, 1), (3, 3), (7, 7)])
@pytest.mark.parametrize("image_size", [22, 33, 64])
def test_any_image_size_and_number_of_classes(num_classes, outputs, image_size):
    network = CNN(num_classes, image_size, channels=[2, 3, 4], dense=[5])
    logits = network(torch.rand(2, 3, image_size, image_size))
    assert logits.shape == (2, outputs)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_arguments_rebuild_the_network():
    network = CNN(3, 32, channels=(4, 8), dense=(16,), dropout=0.2)
    again = CNN(**network.arguments)
    assert repr(again) == repr(network)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 21}, "image_size=21: too small for 3 convolutions, expected at least 22"),
        ({"num_classes": 1}, "num_classes=1: expected greater than or equal to 2"),
        ({"channels": []}, r"channels=\[\]: expected .*at least 1 item"),
        ({"channels": [4, 0]}, r"channels=\[4, 0\]: expected greater than or equal to 1"),
        ({"dropout": 1.0}, r"dropout=1\.0: expected less than 1"),
        ({"dense": "512"}, "dense='512': expected"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        CNN(**{"num_classes": 2, "image_size": 32} | arguments)
