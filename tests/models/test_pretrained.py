import re

import pytest
import torch
import torchvision
from torch import nn

from transfer_learning.callbacks.layer_table import count_parameters
from transfer_learning.errors import UserError
from transfer_learning.models.pretrained import Pretrained

LAST_BLOCK = {
    "vgg16": "block5",
    "resnet18": "block5",
    "resnet50": "block5",
    "efficientnet_v2_s": "block7",
    "convnext_tiny": "block4",
}
IMAGES = torch.rand(4, 3, 64, 64)


def test_as_many_parameters_as_the_tutorial():
    network = Pretrained(2, 150, weights=None, pool="none", dense=[512, 512], dropout=0.3)
    assert count_parameters(network) == (4_457_985, 14_714_688)


NETWORKS = [
    "resnet18",
    "resnet50",
    "efficientnet_v2_s",
    "convnext_tiny",
    "vit_b_16",
    "regnet_y_400mf",
    "mnasnet0_5",
    "densenet121",
]


@pytest.fixture(params=NETWORKS)
def torchvisions(request, tmp_path):
    """A network as torchvision builds it, in evaluation mode, and a file of its weights as published: (name, network, path)."""
    torch.manual_seed(0)
    size = {"image_size": 64} if request.param.startswith("vit") else {}
    network = torchvision.models.get_model(request.param, **size).eval()
    for name, value in network.named_buffers():  # statistics that differ from those of a new network
        if name.endswith("running_mean"):
            nn.init.normal_(value, std=0.1)
    state = network.state_dict()
    for key in [key for key in state if "denselayer" in key]:  # DenseNet's files have norm.1 where its code has norm1
        state[re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", key)] = state.pop(key)
    torch.save(state, tmp_path / "weights.pth")
    return request.param, network, tmp_path / "weights.pth"


def test_features_are_what_torchvisions_network_gives_its_last_layer(torchvisions):
    name, network, path = torchvisions
    seen = []
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    last.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms(crop_size=64)
    ours = Pretrained(2, 64, name, str(path)).eval()
    with torch.no_grad():
        network((IMAGES - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1))
        torch.testing.assert_close(ours.frozen(IMAGES).flatten(1), seen[0], rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in ours.frozen.parameters())
    assert ours.trainable.head[-1].in_features == seen[0].shape[1]


@pytest.mark.parametrize("backbone", [*LAST_BLOCK, "vit_b_16"])
def test_wherever_the_cut_is_the_network_computes_the_same(backbone):
    """Frozen, with its last block and whole: the same logits from the same seed, and gradients from the cut on."""
    logits = {}
    for unfreeze in (None, LAST_BLOCK.get(backbone), "all"):
        torch.manual_seed(0)
        network = Pretrained(2, 64, backbone, weights=None, unfreeze=unfreeze, layer_norm=True).eval()
        out = network(IMAGES)
        out.sum().backward()
        assert all(p.grad is not None for p in network.trainable.parameters() if p.requires_grad)
        assert all(p.grad is None for p in network.frozen.parameters())
        logits[unfreeze] = out.detach(), count_parameters(network)
    for out, (trainable, frozen) in logits.values():
        torch.testing.assert_close(out, logits[None][0], rtol=1e-3, atol=1e-4)
        assert trainable + frozen == sum(logits[None][1])
    trainable = [counts[0] for _, counts in logits.values()]
    assert trainable == sorted(trainable) and trainable[0] < trainable[-1]


def test_batch_norms_stay_as_they_are_in_blocks_that_learn_unless_asked():
    for batch_norm in ("frozen", "train"):
        network = Pretrained(2, 64, "resnet18", weights=None, unfreeze="block5", batch_norm=batch_norm).train()
        norms = [layer for layer in network.trainable.modules() if isinstance(layer, nn.BatchNorm2d)]
        before = [norm.running_mean.clone() for norm in norms]
        network(IMAGES)
        moved = [not torch.equal(mean, norm.running_mean) for mean, norm in zip(before, norms)]
        assert len(norms) == 5 and moved == [batch_norm == "train"] * 5
        assert all(norm.weight.requires_grad == (batch_norm == "train") for norm in norms)
        assert network.trainable.pretrained.block5[0].conv1.weight.requires_grad


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"unfreeze": "layer4"}, "model.unfreeze=layer4: expected null, all or block1, block2, block3, block4, block5"),
        ({"unfreeze": "block12", "backbone": "vit_b_16"}, "model.unfreeze=block12: .* vit_b_16 is no chain"),
        ({"pool": "max"}, "model.pool=max: expected average or none"),
        ({"preprocess": "rescaled"}, "model.preprocess=rescaled: expected weights or rescale"),
        ({"preprocess": "rescale", "backbone": "resnet18"}, "model.preprocess=rescale: .* VGG16's original weights"),
        ({"batch_norm": "yes"}, "model.batch_norm=yes: expected frozen or train"),
        ({"pool": "none", "backbone": "vit_b_16"}, "model.pool=none: vit_b_16 hands no map"),
        ({"head_epochs": None}, "model.head_epochs=None: expected a whole number"),
        ({"lr_share": "small"}, "model.lr_share=small: expected a number"),
        ({"image_size": 31}, "data.image_size=31: vgg16 cannot take it"),
        ({"image_size": 50, "backbone": "vit_b_16"}, "data.image_size=50: vit_b_16 cannot take it"),
        ({"backbone": "squeezenet1_0"}, "model.backbone=squeezenet1_0: it does not end in one dense layer"),
        ({"backbone": "googlenet"}, "model.backbone=googlenet: it does not end in one dense layer"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Pretrained(**{"num_classes": 2, "image_size": 64, "weights": None} | settings)


def test_rescale_feeds_blue_to_the_kernels_of_red_in_0_to_1():
    """As the tutorial: Keras's kernels expect blue first, torchvision's copy of them red, and the images come with red first."""
    network = Pretrained(2, 64, weights=None, preprocess="rescale")
    assert (
        torch.equal(network.frozen.preprocess(IMAGES)[:, 0], IMAGES[:, 2])
        and network.frozen.preprocess(IMAGES).max() <= 1
    )


def test_the_frozen_parts_key_is_of_its_weights_preprocessing_and_cut():
    def key(seed=0, **settings):
        torch.manual_seed(seed)
        return Pretrained(2, 64, **{"weights": None} | settings).frozen.key

    others = [{"seed": 1}, {"preprocess": "rescale"}, {"unfreeze": "block5"}, {"unfreeze": "block4"}, {"pool": "none"}]
    keys = [key(), key(backbone="resnet18"), *(key(**settings) for settings in others)]
    assert len(set(keys)) == len(keys) and key() == keys[0]
    assert key(dense=[8], dropout=0.5) == key() and key(unfreeze="all") is None
