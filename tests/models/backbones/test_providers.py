import sys

import pytest
import torch
import torchvision

from transfer_learning.models import backbones
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import ArgumentError

PROVIDER = """
from torch import nn

from transfer_learning.models.backbones import Backbone, InputSpec


def input_spec(name, weights):
    return InputSpec(f"{name} {weights}", 48, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def create(name, weights, image_size, sha256=None):
    blocks = {"block1": nn.Conv2d(3, 4, 3), "block2": nn.Conv2d(4, 6, 3)}
    return Backbone(blocks, input_spec(name, weights), norm=nn.GroupNorm(2, 6))
"""


@pytest.fixture
def toy_provider(tmp_path, monkeypatch):
    """A provider `toy`, as if its file were in the package."""
    (tmp_path / "toy.py").write_text(PROVIDER)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    yield
    sys.modules.pop("transfer_learning.models.backbones.toy", None)
    if hasattr(backbones, "toy"):
        del backbones.toy


def test_backbone_of_another_provider(toy_provider):
    spec = backbones.input_spec("toy/small", "pretrained")
    assert (spec.weights, spec.image_size, spec.interpolation) == ("small pretrained", 48, "bicubic")
    network = Pretrained(3, 16, "toy/small", weights=None, unfreeze="block2", layer_norm=False).eval()
    assert list(network.frozen._modules) == ["preprocess", "block1"]
    assert list(network.trainable.backbone._modules) == ["block2", "pool", "norm"]
    images = torch.rand(2, 3, 16, 16)
    layers = network.trainable.backbone
    features = layers.norm(layers.block2(network.frozen.block1((images - 0.5) / 0.25)).mean(dim=(2, 3), keepdim=True))
    expected = network.trainable.head[-1](features.flatten(1))
    torch.testing.assert_close(network(images), expected)


def test_torchvision_may_be_named():
    assert backbones.input_spec("torchvision/resnet18", None) == backbones.input_spec("resnet18", None)


def test_folder_of_weights(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(state, tmp_path / "shufflenet_v2_x0_5-mine.pth")
    network = Pretrained(2, 32, "shufflenet_v2_x0_5", weights=str(tmp_path))
    like_torchvisions = Pretrained(2, 32, "shufflenet_v2_x0_5", weights=str(tmp_path), unfreeze="all").trainable
    assert network.frozen_source.name == str(tmp_path / "shufflenet_v2_x0_5-mine.pth")  # what checkpoints hold
    assert torch.equal(like_torchvisions.backbone.body.conv5[0].weight, state["conv5.0.weight"])
    assert backbones.input_spec("shufflenet_v2_x0_5", str(tmp_path)).image_size == 224


@pytest.mark.parametrize("backbone", ["nowhere/x", "../x", "a/b/x", "/x", "os.path/x"])
def test_unknown_provider_is_one_error(backbone):
    for use in (lambda: backbones.input_spec(backbone, None), lambda: Pretrained(2, 32, backbone, weights=None)):
        with pytest.raises(ArgumentError, match="there is no provider") as error:
            use()
        assert str(error.value).startswith(f"backbone={backbone!r}: ") and "\n" not in str(error.value)
