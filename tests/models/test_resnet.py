import pytest
import torch
from torchvision.models.resnet import BasicBlock, conv1x1

from transfer_learning.models.network import count_parameters
from transfer_learning.models.resnet import ResidualBlock, SmallResNet
from transfer_learning.utilities.errors import ArgumentError

SMALL = dict(channels=[4, 6, 8], blocks=[1, 2, 1])


def test_the_defaults_have_2_8_million_parameters():
    assert count_parameters(SmallResNet(num_classes=2, image_size=128)) == (2_804_577, 0)


@pytest.mark.parametrize("num_classes, outputs", [(2, 1), (3, 3)])
@pytest.mark.parametrize("image_size", [1, 2, 7, 31, 32, 33, 64, 150])
def test_any_image_size_and_number_of_classes(num_classes, outputs, image_size):
    network = SmallResNet(num_classes, image_size, **SMALL)
    logits = network(torch.rand(2, 3, image_size, image_size + 3))
    assert logits.shape == (2, outputs)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_sides_are_divided_by_four_and_then_by_two_in_each_further_stage():
    maps, sizes = torch.rand(1, 3, 100, 64), []
    for layer in SmallResNet(2, 64, **SMALL).eval().trainable:
        if isinstance(layer, ResidualBlock):
            maps = layer(maps)
            sizes.append(tuple(maps.shape[1:]))
        elif maps.ndim == 4 and not isinstance(layer, torch.nn.AdaptiveAvgPool2d):
            maps = layer(maps)
    assert sizes == [(4, 25, 16), (6, 13, 8), (6, 13, 8), (8, 7, 4)]


@pytest.mark.parametrize("inputs, outputs, stride", [(4, 4, 1), (4, 6, 1), (4, 6, 2), (4, 4, 2)])
def test_at_first_a_block_returns_its_shortcut(inputs, outputs, stride):
    block, maps = ResidualBlock(inputs, outputs, stride), torch.rand(2, inputs, 7, 7)
    assert torch.equal(block(maps), block.shortcut(maps).relu())
    if inputs == outputs and stride == 1:
        assert torch.equal(block(maps), maps)


@pytest.mark.parametrize("outputs", [4, 6])
def test_a_block_without_stride_is_torchvisions(outputs):
    block = ResidualBlock(4, outputs, stride=1)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    shortcut = None if outputs == 4 else torch.nn.Sequential(conv1x1(4, outputs), torch.nn.BatchNorm2d(outputs))
    reference, (conv1, bn1, _, conv2, bn2) = BasicBlock(4, outputs, downsample=shortcut), block.body
    for own, other in [(conv1, "conv1"), (bn1, "bn1"), (conv2, "conv2"), (bn2, "bn2")]:
        reference.get_submodule(other).load_state_dict(own.state_dict())
    if shortcut:
        shortcut.load_state_dict(block.shortcut.state_dict())
    for _ in range(2):  # statistics of batches
        maps = torch.randn(3, 4, 9, 8)
        torch.testing.assert_close(block(maps), reference(maps))
    torch.testing.assert_close(block.eval()(maps), reference.eval()(maps))


def test_the_shortcut_of_a_stride_averages_before_its_convolution():
    block = ResidualBlock(4, 6, stride=2).eval()
    maps = torch.rand(1, 4, 6, 6)
    pooled = maps.reshape(1, 4, 3, 2, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(block(maps), block.shortcut[1:](pooled).relu())


def test_arguments_rebuild_the_network():
    network = SmallResNet(3, 32, channels=(4, 8), blocks=(1, 2), dropout=0.2)
    again = SmallResNet(**network.arguments)
    assert repr(again) == repr(network)
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again.eval()(images), network.eval()(images))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"blocks": [2, 2]}, r"blocks=\[2, 2\]: expected 4 numbers, one for each of channels"),
        ({"channels": []}, r"channels=\[\]: expected .*at least 1 item"),
        ({"blocks": [1, 1, 0, 1]}, r"blocks=\[1, 1, 0, 1\]: expected greater than or equal to 1"),
        ({"num_classes": 1}, "num_classes=1: expected greater than or equal to 2"),
        ({"dropout": 1.0}, r"dropout=1\.0: expected less than 1"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        SmallResNet(**{"num_classes": 2, "image_size": 32} | arguments)
