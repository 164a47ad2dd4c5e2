import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from transfer_learning.models.cnn import CNN
from transfer_learning.models.grad_cam import grad_cam
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import UserError


class EndToEnd(nn.Module):
    """A network whose frozen part records gradients, with a logit for each class."""

    def __init__(self, network):
        super().__init__()
        self.layers = nn.Sequential(*network.frozen, network.trainable)

    def forward(self, images):
        logits = self.layers(images)
        return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


NETWORKS = {
    "cnn": (lambda classes: CNN(classes, 64, [4, 8], [16]), "trainable.5"),
    "vgg16": (lambda classes: Pretrained(classes, 64, "vgg16", None, pool="none", dense=[8]), "frozen.block5"),
    "vgg16, fine-tuned": (
        lambda classes: Pretrained(classes, 64, "vgg16", None, "block5"),
        "trainable.backbone.block5",
    ),
    "resnet18": (lambda classes: Pretrained(classes, 64, "resnet18", None), "frozen.block5"),
    "convnext_tiny": (lambda classes: Pretrained(classes, 64, "convnext_tiny", None), "frozen.block4"),
    "densenet121": (lambda classes: Pretrained(classes, 64, "densenet121", None), "frozen.body.features"),
}


@pytest.mark.parametrize("name, classes", [("cnn", 3), *((name, 2) for name in NETWORKS)])
def test_maps_are_those_of_captum(name, classes):
    torch.manual_seed(0)
    make, layer = NETWORKS[name]
    network = make(classes).eval()
    images, codes = torch.rand(3, 3, 64, 64), torch.tensor([0, classes - 1, 1])
    with torch.no_grad():
        expected_logits = network(images)
    found = grad_cam(network, images, codes)

    independent = LayerGradCam(EndToEnd(network), network.get_submodule(layer))
    expected = independent.attribute(images, codes, relu_attributions=True).detach()[:, 0]
    assert found.shape == expected.shape and found.shape[1] > 1 and expected.max() > 0
    scale = expected.max().item()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected_logits)  # no hook is left
    assert all(parameter.grad is None for parameter in network.parameters())


def test_place_that_decides_is_where_the_map_is_largest():
    """A network that counts red pixels: the map is largest where the red square is."""
    network = CNN(2, 66, [1], [])
    with torch.no_grad():
        network.trainable[0].weight.zero_()
        network.trainable[0].weight[0, 0, 1, 1] = 1
        network.trainable[4].weight.fill_(1)
    image = torch.zeros(1, 3, 66, 66)
    image[0, 0, 10:20, 40:60] = 1
    cam = grad_cam(network.eval(), image, torch.tensor([1]))[0].numpy()
    rows, columns = np.nonzero(cam > cam.max() / 2)
    assert cam.shape == (32, 32) and {*rows} <= set(range(4, 10)) and {*columns} <= set(range(19, 30))
    assert grad_cam(network, image, torch.tensor([0])).max() == 0  # nothing speaks for the other class


def test_compiled_layers_and_images_without_gradients():
    torch.manual_seed(0)
    network, images = CNN(2, 32, [4, 8], []).eval(), torch.rand(2, 3, 32, 32)
    expected = grad_cam(network, images, torch.tensor([0, 1]))
    network.trainable.compile()
    with torch.no_grad():
        assert torch.equal(grad_cam(network, images, torch.tensor([0, 1])), expected)


@pytest.mark.parametrize("network", [Pretrained(2, 32, "vit_b_16", None), Pretrained(2, 32, "resnet18", None)])
def test_networks_without_maps_are_refused(network):
    if "resnet" in network.arguments["backbone"]:
        network = Pretrained(2, 1, "resnet18", None)
    with pytest.raises(UserError, match="^Grad-CAM needs a convolutional network"):
        grad_cam(network.eval(), torch.rand(1, 3, *[network.arguments["image_size"]] * 2), torch.tensor([0]))
