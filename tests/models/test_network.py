import re

import pytest
import torch
from torch import nn

from transfer_learning.models.cnn import CNN
from transfer_learning.models.network import (
    Frozen,
    Network,
    checked_logits,
    count_parameters,
    num_logits,
    pass_black_image,
)
from transfer_learning.models.resnet import SmallResNet
from transfer_learning.utilities.errors import UserError


def test_frozen_layers_stay_in_evaluation_mode_and_get_no_gradients():
    frozen = Frozen(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network = nn.Sequential(frozen, nn.Flatten(), nn.Linear(4 * 36, 1)).train()
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    images = torch.rand(5, 3, 8, 8, requires_grad=True)
    network(images).sum().backward()
    assert not any(layer.training for layer in frozen.modules())
    assert images.grad is None and all(parameter.grad is None for parameter in frozen.parameters())
    assert network[2].weight.grad is not None
    after = frozen.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())  # batch-norm statistics too


def test_frozen_key_depends_on_parameters_buffers_and_layers():
    def frozen(*layers):
        torch.manual_seed(0)
        return Frozen(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *layers)

    keys = {frozen().key, frozen(nn.ReLU()).key}
    other_weight, other_buffer = frozen(), frozen()
    other_weight[0].weight[0, 0, 0, 0] += 1e-3
    other_buffer[1].running_mean += 1
    keys |= {other_weight.key, other_buffer.key}
    assert len(keys) == 4 and frozen().key in keys
    assert Frozen().key is None and Frozen(nn.ReLU()).key is None


def test_frozen_key_depends_on_versions_of_layers():
    """Of a layer of the user's own, whose code may change without a change of its representation."""

    class Square(nn.Module):
        def forward(self, images):
            return images.square()

    layers = Frozen(nn.Conv2d(3, 4, 3), nn.Sequential(Square()))
    keys = [layers.key]
    for version in (1, 2):
        Square.version = version
        keys.append(layers.key)
    assert len(set(keys)) == 3 and layers.key == keys[-1]


def test_network_computes_the_frozen_part_then_the_trainable_part():
    frozen, trainable = Frozen(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 1))
    network, images = Network(frozen, trainable, {}), torch.rand(2, 3, 8, 8)
    assert torch.equal(network(images), trainable(frozen(images)))
    assert count_parameters(network) == (4 * 36 + 1, 3 * 4 * 9 + 4)
    (group,) = network.parameter_groups()
    assert [id(parameter) for parameter in group.parameters] == [id(parameter) for parameter in trainable.parameters()]
    assert (group.lr_scale, group.weight_decay, group.from_epoch) == (1.0, None, 0)


@pytest.mark.parametrize("num_classes, expected", [(2, 1), (3, 3), (10, 10)])
def test_two_classes_have_one_logit(num_classes, expected):
    assert num_logits(num_classes) == expected


@pytest.mark.parametrize("training", [True, False])
def test_a_black_image_passes_in_evaluation_mode_and_changes_nothing(training):
    network = SmallResNet(3, 32, [4], [1], dropout=0.5).train(training)
    before, modes = {key: value.clone() for key, value in network.state_dict().items()}, []
    network.trainable[1].register_forward_hook(lambda layer, *_: modes.append(layer.training))
    assert torch.equal(pass_black_image(network, 32), pass_black_image(network, 32)) and modes == [False, False]
    assert network.training == network.trainable[1].training == training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_mode_is_restored_if_the_image_does_not_fit():
    network = CNN(2, 16, [2], [])
    with pytest.raises(RuntimeError):
        pass_black_image(network, 8)
    assert network.training


@pytest.mark.parametrize("shape, classes", [((4, 1), 2), ((4, 2), 2), ((4, 3), 3)])
def test_logits_of_the_classes_are_accepted(shape, classes):
    logits = torch.rand(shape)
    assert checked_logits(logits, classes) is logits


@pytest.mark.parametrize(
    "shape, classes, expected",
    [((4, 5), 2, r"\(N, 1 or 2\) for 2"), ((4, 1), 3, r"\(N, 3\) for 3"), ((4, 2, 2), 2, r"\(N, 1 or 2\) for 2")],
)
def test_other_outputs_are_refused(shape, classes, expected):
    with pytest.raises(UserError, match=f"{re.escape(str(shape))}, expected {expected} classes"):
        checked_logits(torch.rand(shape), classes)
