import pytest
import torch
from torch import nn

from transfer_learning.models.heads import dense_layers, keras_init


def test_keras_init_is_glorot_uniform_with_zero_biases():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Linear(1000, 500)).apply(keras_init)
    for layer, fans in zip(layers, (64 * 9 + 128 * 9, 1500)):
        limit = (6 / fans) ** 0.5  # keras.initializers.GlorotUniform
        assert layer.bias.abs().max() == 0
        assert 0.99 * limit < layer.weight.abs().max() <= limit
        assert abs(layer.weight.std().item() - limit / 3**0.5) < 0.01 * limit


@pytest.mark.parametrize(
    "dense, dropout, layer_norm, expected",
    [
        ([], 0.0, False, "Flatten Linear"),
        ([], 0.5, True, "Flatten LayerNorm Dropout Linear"),
        ([8], 0.0, False, "Flatten Linear ReLU Linear"),
        ([8, 4], 0.5, True, "Flatten LayerNorm Linear ReLU Dropout Linear ReLU Dropout Linear"),
    ],
)
def test_layers_of_a_head(dense, dropout, layer_norm, expected):
    layers = dense_layers(6, dense, dropout, 3, layer_norm)
    assert " ".join(type(layer).__name__ for layer in layers) == expected
    assert all(layer.p == dropout for layer in layers if isinstance(layer, nn.Dropout))
    assert nn.Sequential(*layers)(torch.rand(5, 2, 3)).shape == (5, 3)
