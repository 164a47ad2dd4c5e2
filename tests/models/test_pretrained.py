import re

import pytest
import torch
import torchvision
from torch import nn

from transfer_learning.data.batch import features_from_rows, features_to_rows
from transfer_learning.models.network import count_parameters
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import ArgumentError

LAST_BLOCK = {
    "vgg16": "block5",
    "resnet18": "block5",
    "resnet50": "block5",
    "efficientnet_v2_s": "block7",
    "convnext_tiny": "block4",
    "swin_t": "block4",
    "vit_b_16": "block13",
}
IMAGES = torch.rand(4, 3, 64, 64)
PLAIN_HEAD = dict(layer_norm=False, dropout=0.0)


def test_parameter_counts_of_the_tutorial():
    head = dict(pool="none", dense=[512, 512], dropout=0.3, layer_norm=False)
    network = Pretrained(2, 150, "vgg16", weights=None, **head)
    assert count_parameters(network) == (4_457_985, 14_714_688)


NETWORKS = [
    "resnet18",
    "resnet50",
    "efficientnet_v2_s",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "regnet_y_400mf",
    "mnasnet0_5",
    "densenet121",
]


@pytest.fixture(params=NETWORKS)
def torchvisions(request, tmp_path):
    """(name, network, path): torchvision's network in evaluation mode, and a file of its weights as published."""
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


def test_features_are_the_input_of_the_last_layer_of_torchvisions_network(torchvisions):
    name, network, path = torchvisions
    seen = []
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    last.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms(crop_size=64)
    ours = Pretrained(2, 64, name, str(path), **PLAIN_HEAD).eval()
    with torch.no_grad():
        network((IMAGES - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1))
        torch.testing.assert_close(ours.frozen(IMAGES).flatten(1), seen[0], rtol=1e-4, atol=1e-4)
        outputs = IMAGES
        for layer in ours.frozen:  # what passes each cut is stored, and read again
            outputs = features_from_rows(torch.from_numpy(features_to_rows(layer(outputs))))
        torch.testing.assert_close(outputs.flatten(1), seen[0], rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in ours.frozen.parameters())
    assert ours.trainable.head[-1].in_features == seen[0].shape[1]


@pytest.mark.parametrize("backbone", [*LAST_BLOCK, "regnet_y_400mf"])
def test_logits_do_not_depend_on_the_cut(backbone):
    """Frozen, with its last block and whole: the same logits from the same seed, and gradients from the cut on."""
    logits = {}
    for unfreeze in (None, LAST_BLOCK.get(backbone), "all"):
        torch.manual_seed(0)
        network = Pretrained(2, 64, backbone, weights=None, unfreeze=unfreeze, layer_norm=True, dropout=0.0).eval()
        out = network(IMAGES)
        out.sum().backward()
        assert all(p.grad is not None for p in network.trainable.parameters() if p.requires_grad)
        assert all(p.grad is None for p in network.frozen.parameters())
        logits[unfreeze] = out.detach(), count_parameters(network)
    for out, (trainable, frozen) in logits.values():
        torch.testing.assert_close(out, logits[None][0], rtol=1e-3, atol=1e-4)
        assert trainable + frozen == pytest.approx(sum(logits["all"][1]), rel=0.01)  # some batch norms are folded
    trainable = [counts[0] for _, counts in logits.values()]
    assert trainable == sorted(trainable) and trainable[0] < trainable[-1]


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_batch_norms_of_unfrozen_blocks(batch_norm):
    network = Pretrained(2, 64, "resnet18", weights=None, unfreeze="block5", batch_norm=batch_norm).train()
    norms = [layer for layer in network.trainable.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    network(IMAGES)
    moved = [not torch.equal(mean, norm.running_mean) for mean, norm in zip(before, norms)]
    assert len(norms) == 5 and moved == [batch_norm == "train"] * 5
    assert all(norm.weight.requires_grad == (batch_norm == "train") for norm in norms)
    assert network.trainable.backbone.block5[0].conv1.weight.requires_grad


def test_batch_norms_of_unfrozen_blocks_stay_frozen_by_default():
    network = Pretrained(2, 64, "resnet18", weights=None, unfreeze="block5").train()
    norms = [layer for layer in network.trainable.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 5 and not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_parameter_groups_are_the_head_and_the_unfrozen_blocks():
    network = Pretrained(2, 64, "resnet18", weights=None, unfreeze="block5", unfreeze_at_epoch=3, backbone_lr_scale=0.2)
    head, backbone = network.parameter_groups()
    assert (head.name, head.lr_scale, head.from_epoch) == ("head", 1.0, 0)
    assert (backbone.name, backbone.lr_scale, backbone.from_epoch) == ("backbone", 0.2, 3)
    grouped = [id(p) for group in (head, backbone) for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    assert [group.name for group in Pretrained(2, 64, "resnet18", weights=None).parameter_groups()] == ["head"]


@pytest.mark.parametrize("unfreeze", ["all", "block3", "block5"])
def test_layer_decay(unfreeze):
    """BEiT's rule: a block's rate is decay ** (number of blocks up to the head) of the head's."""
    network = Pretrained(
        2, 64, "convnext_tiny" if unfreeze == "block3" else "resnet18", None, unfreeze, layer_decay=0.5
    )
    head, *groups = network.parameter_groups()
    blocks = 4 if unfreeze == "block3" else 5
    first = 1 if unfreeze == "all" else int(unfreeze[-1])
    scales = {f"block{n}": 0.1 * 0.5 ** (blocks - n + 1) for n in range(blocks, first - 1, -1)}
    assert {group.name: group.lr_scale for group in groups} == pytest.approx(scales)
    assert (head.name, head.lr_scale) == ("head", 1.0) and {group.from_epoch for group in groups} == {2}
    grouped = [id(p) for group in (head, *groups) for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    for group in groups:
        own = {id(p) for p in network.trainable.backbone.get_submodule(group.name).parameters() if p.requires_grad}
        assert own <= set(map(id, group.parameters))


def test_defaults_are_a_regularized_head_on_resnet50():
    network = Pretrained(2, 64, weights=None)
    assert network.arguments["backbone"] == "resnet50"
    assert [type(layer).__name__ for layer in network.trainable.head] == ["Flatten", "LayerNorm", "Dropout", "Linear"]
    assert network.trainable.head[2].p == 0.3
    assert (network.unfreeze_at_epoch, network.backbone_lr_scale) == (2, 0.1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"unfreeze": "layer4"}, "unfreeze='layer4': expected null, all or block1, block2, block3, block4, block5"),
        ({"unfreeze": "block4", "backbone": "densenet121"}, "unfreeze='block4': .* densenet121 is no chain"),
        ({"weights": ""}, "weights='': expected a path"),
        ({"layer_decay": 0}, "layer_decay=0: expected greater than 0"),
        ({"layer_decay": 0.5}, "layer_decay=0.5: without unfreeze, no block learns; expected null"),
        ({"layer_decay": 1.5}, "layer_decay=1.5: expected less than or equal to 1"),
        ({"layer_decay": 0.5, "backbone": "densenet121"}, "layer_decay=0.5: densenet121 is no chain of blocks"),
        ({"pool": "max"}, "pool='max': expected 'average' or 'none'"),
        ({"preprocess": "rescaled"}, "preprocess='rescaled': expected 'weights' or 'tutorial'"),
        ({"preprocess": "tutorial", "backbone": "resnet18"}, "preprocess='tutorial': .* VGG16's original weights"),
        ({"batch_norm": "yes"}, "batch_norm='yes': expected 'frozen' or 'train'"),
        ({"pool": "none", "backbone": "vit_b_16"}, "pool='none': vit_b_16 passes no map"),
        ({"unfreeze_at_epoch": None}, "unfreeze_at_epoch=None: expected a valid integer"),
        ({"unfreeze_at_epoch": -1}, "unfreeze_at_epoch=-1: expected greater than or equal to 0"),
        ({"backbone_lr_scale": "small"}, "backbone_lr_scale='small': expected a valid number"),
        ({"backbone_lr_scale": -0.1}, "backbone_lr_scale=-0.1: expected greater than or equal to 0"),
        ({"image_size": 31}, "image_size=31: vgg16 does not support it"),
        ({"image_size": 50, "backbone": "vit_b_16"}, "image_size=50: vit_b_16 does not support it"),
        ({"backbone": "squeezenet1_0"}, "backbone='squeezenet1_0': it does not end in one dense layer"),
        ({"backbone": "googlenet"}, "backbone='googlenet': it does not end in one dense layer"),
    ],
)
def test_invalid_arguments(settings, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        Pretrained(**{"num_classes": 2, "image_size": 64, "backbone": "vgg16", "weights": None} | settings)


def test_preprocessing_of_the_tutorial_reverses_channels_of_images_in_0_to_1():
    """Keras's kernels expect blue first, torchvision's copy of them red; the tutorial feeds red first."""
    network = Pretrained(2, 64, "vgg16", weights=None, preprocess="tutorial")
    preprocessed = network.frozen.preprocess(IMAGES)
    assert torch.equal(preprocessed[:, 0], IMAGES[:, 2]) and preprocessed.max() <= 1


def test_frozen_key_depends_on_weights_preprocessing_and_cut():
    def key(seed=0, **settings):
        torch.manual_seed(seed)
        return Pretrained(2, 64, **{"backbone": "vgg16", "weights": None} | PLAIN_HEAD | settings).frozen.key

    others = [{"seed": 1}, {"preprocess": "tutorial"}, {"unfreeze": "block5"}, {"unfreeze": "block4"}, {"pool": "none"}]
    keys = [key(), key(backbone="resnet18"), *(key(**settings) for settings in others)]
    assert len(set(keys)) == len(keys) and key() == keys[0]
    assert key(dense=[8], dropout=0.5) == key() and key(unfreeze="all") is None


@pytest.mark.parametrize("unfreeze", [None, "block5", "all"])
def test_arguments_rebuild_the_network(unfreeze):
    settings = dict(dense=(8,), unfreeze_at_epoch=1, layer_decay=0.5 if unfreeze else None)
    network = Pretrained(3, 64, "resnet18", None, unfreeze, **settings)
    again = Pretrained(**network.arguments)
    assert repr(again) == repr(network) and again.arguments == network.arguments
    again.load_state_dict(network.state_dict())
