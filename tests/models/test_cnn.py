import pytest
import torch

from transfer_learning.callbacks.layer_table import count_parameters
from transfer_learning.errors import UserError
from transfer_learning.models.cnn import CNN

TUTORIAL = {  # arguments, parameters that Keras printed
    "basic": (dict(), 19_024_513),
    "regularised": (dict(channels=[16, 64, 128, 128], dense=[512, 512], dropout=0.3), 3_706_113),
}


@pytest.mark.parametrize("name", TUTORIAL)
def test_as_many_parameters_as_the_tutorial(name):
    arguments, parameters = TUTORIAL[name]
    assert count_parameters(CNN(num_classes=2, image_size=150, **arguments)) == (parameters, 0)


@pytest.mark.parametrize("num_classes, outputs", [(2, 1), (3, 3), (7, 7)])
@pytest.mark.parametrize("image_size", [22, 33, 64])
def test_any_size_and_number_of_classes(num_classes, outputs, image_size):
    network = CNN(num_classes, image_size, channels=[2, 3, 4], dense=[5])
    logits = network(torch.rand(2, 3, image_size, image_size))
    assert logits.shape == (2, outputs)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_smallest_image_that_its_error_names():
    with pytest.raises(UserError, match="data.image_size=21: too small for 3 convolutions, expected at least 22"):
        CNN(2, 21)
