import torch
from torch import nn

from transfer_learning.models.network import Frozen, keras_init


def test_frozen_stays_in_evaluation_mode_and_passes_no_gradient():
    frozen = Frozen(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network = nn.Sequential(frozen, nn.Flatten(), nn.Linear(4 * 36, 1)).train()
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    images = torch.rand(5, 3, 8, 8, requires_grad=True)
    network(images).sum().backward()
    assert not any(layer.training for layer in frozen.modules())
    assert images.grad is None and all(parameter.grad is None for parameter in frozen.parameters())
    assert network[2].weight.grad is not None
    assert all(
        torch.equal(value, frozen.state_dict()[key]) for key, value in before.items()
    )  # batch-norm's statistics too


def test_keras_init_is_glorot_uniform_with_zero_biases():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Linear(1000, 500)).apply(keras_init)
    for layer, fans in zip(layers, (64 * 9 + 128 * 9, 1500)):
        limit = (6 / fans) ** 0.5  # keras.initializers.GlorotUniform
        assert layer.bias.abs().max() == 0
        assert 0.99 * limit < layer.weight.abs().max() <= limit
        assert abs(layer.weight.std().item() - limit / 3**0.5) < 0.01 * limit
