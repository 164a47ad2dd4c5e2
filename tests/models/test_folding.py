import copy

import pytest
import torch
import torchvision
from torch import nn

from transfer_learning.models.folding import fold_batch_norms
from transfer_learning.models.pretrained import Pretrained

IMAGES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def with_statistics(layers: nn.Module) -> nn.Module:
    """The layers with batch norms like those of a trained network, in evaluation mode."""
    for layer in layers.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return layers.eval()


def batch_norms(layers: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.modules())


class Convolutions(nn.Module):
    """Two convolutions with a batch norm; what else the first one's output is used for depends on `use`."""

    def __init__(self, use: str):
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.norm, self.last = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.other = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        match self.use:
            case "by a layer too":
                maps = self.norm(maps) + self.other(maps)
            case "by a function too":
                maps = self.norm(maps) + maps
            case "by no norm":
                maps = self.norm(maps.relu())
            case "twice by the norm":
                maps = self.norm(self.first(images.flip(3))) + self.norm(maps)
            case "alone":
                maps = self.norm(maps)
        return self.last(self.second(maps.relu()))


@pytest.mark.parametrize(
    "use, left",
    [
        ("alone", 0),
        ("by a layer too", 1),
        ("by a function too", 2),  # only the check of the outputs can see it; then nothing is folded
        ("by no norm", 1),
        ("twice by the norm", 1),
    ],
)
def test_outputs_are_the_same_whatever_else_uses_a_convolution(use, left):
    layers = nn.Sequential(with_statistics(Convolutions(use)))
    expected, state = layers(IMAGES), copy.deepcopy(layers.state_dict())
    folded = fold_batch_norms(layers, 64)
    torch.testing.assert_close(folded.eval()(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert batch_norms(folded) == left
    for name, value in layers.state_dict().items():
        assert torch.equal(value, state[name]), f"{name} was changed"


@pytest.mark.parametrize("name, left", [("resnet18", 0), ("mobilenet_v3_small", 0), ("densenet121", 62)])
def test_torchvisions_networks(name, left):
    """In DenseNet, half of the norms and one more get sums of several convolutions."""
    torch.manual_seed(0)
    layers = nn.Sequential(with_statistics(torchvision.models.get_model(name)))
    with torch.no_grad():
        expected = layers(IMAGES)
        folded = fold_batch_norms(layers, 64).eval()
        torch.testing.assert_close(folded(IMAGES), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert batch_norms(folded) == left


def test_timms_norms_keep_their_activation():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    layers = nn.Sequential(with_statistics(timm.create_model("tf_efficientnet_lite0", num_classes=0)))
    with torch.no_grad():
        folded = fold_batch_norms(layers, 64).eval()
        torch.testing.assert_close(folded(IMAGES), layers(IMAGES), rtol=1e-3, atol=1e-4)
    assert batch_norms(folded) == 0


def test_what_learns_keeps_its_batch_norms():
    network = Pretrained(2, 64, "resnet18", weights=None, unfreeze="block5")
    assert batch_norms(network.frozen) == 0 and batch_norms(network.trainable) == 5
    assert batch_norms(Pretrained(2, 64, "resnet18", weights=None, unfreeze="all")) == 20


def test_random_frozen_weights_of_a_checkpoint_fit():
    torch.manual_seed(0)
    saved = Pretrained(2, 64, "resnet18", weights=None).eval()
    torch.manual_seed(1)
    loaded = Pretrained(**saved.arguments).eval()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(IMAGES), saved(IMAGES))


def test_norms_with_statistics_of_each_batch_are_kept():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False))
    folded = fold_batch_norms(layers.eval(), 16).eval()
    assert batch_norms(folded) == 1
    torch.testing.assert_close(folded(IMAGES), layers(IMAGES), rtol=1e-4, atol=1e-5)


def test_layers_without_batch_norms_are_returned():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert fold_batch_norms(layers, 8) is layers
