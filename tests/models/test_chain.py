"""Small networks of all the kinds that a chain has to tell apart, written without timm."""

import pytest
import torch
from torch import nn

from transfer_learning.models.chain import Part, chain

IMAGES = torch.rand(3, 3, 8, 8)


class Toy(nn.Module):
    """A stem, four layers and a head with a norm; `glue` may stand between the stem and the layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layers = nn.ModuleList([self.layer() for _ in range(4)])
        self.shift = nn.Parameter(torch.rand(4, 1, 1))
        self.last = nn.Conv2d(4, 5, 1)
        self.norm, self.classifier = nn.LayerNorm(5), nn.Identity()

    def layer(self):
        return nn.Conv2d(4, 4, 1)

    def glue(self, maps, images):
        return maps

    def call(self, layer, maps):
        return layer(maps)

    def forward_features(self, images):
        maps = self.glue(self.stem(images), images)
        for layer in self.layers:
            maps = self.call(layer, maps)
        return self.last(maps)

    def forward_head(self, maps, pre_logits=False):
        features = self.norm(maps.mean(dim=(2, 3)))
        return features if pre_logits else self.classifier(features)


class WithPositions(Toy):
    def glue(self, maps, images):
        return maps + self.shift


class InPlace(Toy):
    """The tensor that a layer gets is the one that the stem returned, with other values."""

    def glue(self, maps, images):
        return maps.add_(1)


class WithImages(Toy):
    """Each layer also gets something that depends on the image."""

    def layer(self):
        return nn.Bilinear(6, 6, 6)

    def call(self, layer, maps):
        return layer(maps, self.images[:, :1, :6, :6].expand_as(maps))

    def forward_features(self, images):
        self.images = images
        return super().forward_features(images)


class WithParameter(WithImages):
    """Each layer also gets a learned bias."""

    def call(self, layer, maps):
        return layer(maps, (self.shift * 2).expand_as(maps))


class Scaled(nn.Linear):
    def forward(self, maps, scale, factor=1):
        return super().forward(maps * scale * factor)


class WithScale(Toy):
    """Each layer also gets the same tensor and a number."""

    def layer(self):
        return Scaled(6, 6)

    def call(self, layer, maps):
        return layer(maps, torch.linspace(0, 1, 6), factor=3)


class Branches(Toy):
    """The sum of two layers."""

    def forward_features(self, images):
        maps = self.stem(images)
        return self.last(self.layers[0](maps) + self.layers[1](maps))


class OneAgain(Toy):
    """A layer is used twice, so that no cut between the two is possible."""

    def forward_features(self, images):
        return self.last(self.layers[1](self.layers[0](self.layers[1](self.stem(images)))))


def ends(count=4):
    return [f"layers.{index}" for index in range(count)]


@pytest.mark.parametrize(
    "network, stem_apart, counts",
    [
        (Toy, False, [2, 1, 1, 2]),  # stem and first layer, two layers, the last one and what follows it
        (Toy, True, [1, 1, 1, 1, 2]),
        (WithPositions, False, [2, 1, 1, 2]),
        (WithPositions, True, [1, 1, 1, 1, 2]),
        (WithScale, True, [1, 1, 1, 1, 2]),
    ],
)
def test_blocks_one_after_another_give_what_the_network_gives(network, stem_apart, counts):
    torch.manual_seed(0)
    network = network().eval()
    blocks, head = chain(network, ends(), IMAGES, stem_apart)
    assert [len(block) if isinstance(block, nn.Sequential) else 1 for block in blocks] == counts
    images = torch.rand(5, 3, 8, 8)
    expected = network.forward_head(network.forward_features(images), pre_logits=True)
    torch.testing.assert_close(nn.Sequential(*blocks, head)(images), expected)
    used = {id(p) for layer in [*blocks, head] for p in layer.parameters()}
    needed = {id(p) for name, p in network.named_parameters() if name != "shift"}
    assert used == needed | ({id(network.shift)} if isinstance(network, WithPositions) else set())
    counted = [id(p) for layer in [*blocks, head] for p in layer.parameters()]
    assert len(counted) == len(set(counted))  # no parameter is in two blocks


def test_cuts_are_after_the_given_layers():
    blocks, _ = chain(Toy().eval(), ["layers.1", "layers.2", "unknown"], IMAGES)
    assert [len(block) if isinstance(block, nn.Sequential) else 1 for block in blocks] == [3, 3]


@pytest.mark.parametrize("network", [InPlace, WithImages, WithParameter, Branches, OneAgain])
def test_networks_that_are_no_chain_are_one_piece(network):
    assert chain(network().eval(), ends(), IMAGES) is None
    assert Part(network()).eval()(IMAGES).shape == (3, 5)


def test_fewer_than_two_blocks_are_no_chain():
    assert chain(Toy().eval(), ["layers.1"], IMAGES) is None
    assert chain(Toy().eval(), [], IMAGES) is None


def test_errors_of_the_network_are_not_hidden():
    with pytest.raises(RuntimeError):
        chain(Toy().eval(), ends(), torch.rand(3, 3, 2, 2))


def test_constant_arguments_move_with_the_layer_and_are_no_weights():
    blocks, _ = chain(WithScale().eval(), ends(), IMAGES)
    assert not any("given" in name for name in blocks[1].state_dict())
    assert blocks[1].double()(torch.rand(1, 4, 6, 6, dtype=torch.double)).dtype == torch.double
    assert "factor" in repr(blocks[1])
