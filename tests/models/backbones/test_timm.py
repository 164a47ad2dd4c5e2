"""Backbones of timm's against timm's own code, with random weights, small networks and small images."""

import hashlib
import subprocess
import sys

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from tests.conftest import PROJECT
from transfer_learning.callbacks.layer_table import layer_table
from transfer_learning.data.batch import features_from_rows, features_to_rows
from transfer_learning.models.backbones import input_spec
from transfer_learning.models.backbones import timm as provider
from transfer_learning.models.grad_cam import grad_cam
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.weights import WeightsSource
from transfer_learning.utilities.errors import ArgumentError, UserError

# name: side of the images in pixels, number of blocks (0 for one piece)
NETWORKS = {
    "deit_tiny_distilled_patch16_224": (48, 13),
    "ghostnet_050": (64, 5),
    "hgnetv2_b0": (64, 4),
    "levit_128s": (64, 3),
    "mobilenetv3_small_050": (64, 5),
    "regnetx_002": (64, 5),
    "test_byobnet": (64, 5),
    "test_convnext": (64, 4),
    "test_efficientnet": (64, 5),
    "test_mambaout": (64, 4),
    "test_maxvit": (64, 5),
    "test_nfnet": (64, 5),
    "test_resnet": (64, 5),
    "test_vit": (64, 7),
    "tf_efficientnet_lite0": (64, 5),
    "xcit_nano_12_p16_224": (64, 0),
}
SLOW = {
    "dla46x_c": (64, 6),
    "edgenext_xx_small": (64, 4),
    "eva02_tiny_patch14_224": (56, 13),
    "gmlp_ti16_224": (32, 31),
    "test_coatnet": (64, 5),
    "test_vit3": (64, 10),
    "efficientformerv2_s0": (64, 4),
    "beit_base_patch16_224": (32, 13),
    "caformer_s18": (64, 4),
    "coatnet_nano_rw_224": (64, 5),
    "densenet121": (64, 5),
    "nfnet_l0": (64, 5),
    "poolformer_s12": (64, 4),
    "repvgg_a0": (64, 5),
    "resnetv2_18": (64, 5),
    "swin_tiny_patch4_window7_224": (64, 4),
    "tiny_vit_5m_224": (64, 4),
    "vgg11": (64, 6),
}
XCIT = "timm/xcit_nano_12_p16_224"  # class token and patches pass its last layers apart
WEIGHTS = PROJECT.parent / "shared" / "weights"


def features_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the network's last layer gets, by timm's own methods."""
    cfg = network.pretrained_cfg
    images = (images - torch.tensor(cfg["mean"]).view(3, 1, 1)) / torch.tensor(cfg["std"]).view(3, 1, 1)
    return network.forward_head(network.forward_features(images), pre_logits=True)


@pytest.fixture
def timms(tmp_path):
    """timms(name, size): (network, file): timm's network in evaluation mode, and a file of its weights."""

    def make(name, size):
        torch.manual_seed(0)
        sized = {"img_size": size} if provider.pretrained_cfg(name, None).fixed_input_size else {}
        network = timm.create_model(name, **sized).eval()
        for key, value in network.named_buffers():  # statistics that differ from those of a new network
            if key.endswith("running_mean"):
                nn.init.normal_(value, std=0.1)
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        return network, tmp_path / "weights.pth"

    return make


@torch.no_grad()
def check_features_and_cuts(name, size, count, network, path):
    images = torch.rand(2, 3, size, size)
    expected = features_of(network, images)
    ours = Pretrained(2, size, f"timm/{name}", str(path), layer_norm=False, dropout=0.0).eval()
    near = dict(rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    torch.testing.assert_close(ours.frozen(images), expected, **near)
    names = [layer for layer in ours.frozen._modules if layer.startswith("block")]
    assert names == [f"block{n}" for n in range(1, count + 1)]
    outputs = images
    for layer in ours.frozen:  # what passes each cut is stored, and read again
        outputs = features_from_rows(torch.from_numpy(features_to_rows(layer(outputs))))
    torch.testing.assert_close(outputs, expected, **near)
    if names:
        cut = names[len(names) // 2]
        torch.manual_seed(1)
        whole = Pretrained(3, size, f"timm/{name}", str(path), unfreeze="all", dropout=0.0).eval()
        torch.manual_seed(1)
        parts = Pretrained(3, size, f"timm/{name}", str(path), unfreeze=cut, dropout=0.0).eval()
        stored = features_from_rows(torch.from_numpy(features_to_rows(parts.frozen(images))))
        torch.testing.assert_close(parts.trainable(stored), whole(images), **near)
        assert not {id(p) for p in parts.frozen.parameters()} & {id(p) for p in parts.trainable.parameters()}
        with torch.enable_grad():
            whole.train()(images).sum().backward()
        assert not [key for key, p in whole.named_parameters() if p.requires_grad and p.grad is None]  # all are used


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_features_and_cuts(name, timms):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    size, count = (NETWORKS | SLOW)[name]
    if name in ("caformer_s18", "poolformer_s12") and timm.create_model(name).feature_info[-1]["reduction"] == 2:
        count += 1  # timm 1.0.12 lists these as networks of one resolution, whose stem is a block of its own
    check_features_and_cuts(name, size, count, *timms(name, size))


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_real_weights(name):
    path = WEIGHTS / f"tf_efficientnet_{name}-imagenet.pth"
    if not path.is_file():
        pytest.skip(f"needs ImageNet weights of EfficientNet-{name.capitalize()} in {path}")
    network = timm.create_model(f"tf_efficientnet_{name}", checkpoint_path=str(path)).eval()
    images = torch.rand(2, 3, 96, 96)
    ours = Pretrained(2, 96, f"timm/tf_efficientnet_{name}", str(path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.frozen(images), features_of(network, images), rtol=1e-3, atol=1e-3)
    assert ours.frozen_source == WeightsSource(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """hub(network): a Hugging Face hub that has one file for every repository; the list of what was asked for."""
    asked = []

    def make(network, filename="model.safetensors"):
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")

        def download(repo_id, asked_filename):
            asked.append((repo_id, asked_filename))
            if asked_filename != filename:
                raise EntryNotFoundError("no such file")
            return str(tmp_path / filename)

        monkeypatch.setattr(provider, "hf_hub_download", download)
        return asked

    return make


@pytest.mark.parametrize(
    "name, weights, full, filename",
    [
        ("small", "DEFAULT", "small.e2400_r224_in1k", "model.safetensors"),
        ("small.e1200_r224_in1k", "DEFAULT", "small.e1200_r224_in1k", "pytorch_model.bin"),
        ("small", "e1200_r224_in1k", "small.e1200_r224_in1k", "model.safetensors"),
        ("small.e2400_r224_in1k", "small.e1200_r224_in1k", "small.e1200_r224_in1k", "model.safetensors"),
    ],
)
def test_published_weights_by_name(hub, tmp_path, name, weights, full, filename):
    """They are recorded with their full name, by which the network is built again."""
    name, full, weights = (text.replace("small", "mobilenetv4_conv_small") for text in (name, full, weights))
    network = timm.create_model("mobilenetv4_conv_small").eval()
    asked = hub(network, filename)
    ours = Pretrained(2, 32, f"timm/{name}", weights)
    assert {repository for repository, _ in asked} == {f"timm/{full}"}
    assert ours.frozen_source.name == full
    assert ours.frozen_source.sha256 == hashlib.sha256((tmp_path / filename).read_bytes()).hexdigest()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval().frozen(images), features_of(network, images), rtol=1e-3, atol=1e-3)
    again = Pretrained(**ours.arguments, sha256=ours.frozen_source.sha256)
    assert again.frozen_source == ours.frozen_source and again.frozen.key == ours.frozen.key
    with pytest.raises(UserError, match="its SHA-256 is"):
        Pretrained(**ours.arguments, sha256="0" * 64)


def test_failed_download_is_one_error_that_lists_the_alternatives(monkeypatch):
    def offline(*arguments):
        raise OSError("no network\nat all")

    monkeypatch.setattr(provider, "hf_hub_download", offline)
    with pytest.raises(ArgumentError, match="^weights='DEFAULT': https://hugg.*/timm/resnet18.a1_in1k ") as error:
        Pretrained(2, 32, "timm/resnet18")
    for part in ("no network", "Name a file as `weights`", "random weights (null)"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_input_is_that_of_timms_pretrained_cfg():
    for weights in ("DEFAULT", None, "a/file.pth"):
        spec = input_spec("timm/tf_efficientnet_lite2", weights)
        assert spec == ("tf_efficientnet_lite2.in1k", 260, "bicubic", (0.5,) * 3, (0.5,) * 3, 0.89)
    by_tag, by_name = input_spec("timm/resnet18", "tv_in1k"), input_spec("timm/resnet18.tv_in1k", "DEFAULT")
    assert by_tag == by_name != input_spec("timm/resnet18", "DEFAULT")
    assert (by_tag.weights, by_tag.interpolation, by_tag.crop_pct) == ("resnet18.tv_in1k", "bilinear", 0.875)
    assert input_spec("timm/resnet50.a1_in1k", None).image_size == 224  # of the training; 288 in timm's tests


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"backbone": "timm/tf_efficientnet_light0"}, "no such network in timm; did you mean tf_efficientnet_lite0 or"),
        ({"backbone": "timm/resnet18.in1k"}, "no such weights; expected one of resnet18.a1_in1k, "),
        (
            {"weights": "in22k"},
            "no such file; expected a file, one of DEFAULT, .*tv_in1k, .*or null for random weights",
        ),
        ({"weights": "DEFAULT", "backbone": "timm/coatnet_0_224"}, "timm has none of coatnet_0_224"),
        ({"unfreeze": "block9"}, "expected null, all or block1, block2, block3, block4, block5."),
        ({"unfreeze": "block2", "backbone": XCIT}, "expected null, all or no block, since .* is no chain"),
        ({"layer_decay": 0.5, "backbone": XCIT}, f"{XCIT} is no chain of blocks"),
        ({"pool": "none", "backbone": "timm/test_vit"}, "timm/test_vit passes no map to its last layer"),
        ({"image_size": 50, "backbone": "timm/efficientformer_l1"}, "efficientformer_l1 does not support it"),
        ({"image_size": 2, "backbone": "timm/test_convnext"}, "test_convnext does not support it"),
    ],
)
def test_invalid_arguments(settings, message):
    wrong = next(iter(settings))
    with pytest.raises(ArgumentError, match=f"^{wrong}={settings[wrong]!r}: .*{message}") as error:
        Pretrained(**{"num_classes": 2, "image_size": 64, "backbone": "timm/resnet18", "weights": None} | settings)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_or_size(timms):
    _, path = timms("test_vit", 160)
    with pytest.raises(ArgumentError, match="^weights=.*not resnet18 in timm's layout"):
        Pretrained(2, 64, "timm/resnet18", str(path))
    resized = Pretrained(2, 64, "timm/test_vit", str(path))
    (positions,) = (value for key, value in resized.state_dict().items() if key.endswith("pos_embed"))
    assert positions.shape[1] in (16, 17)  # patches of 16 pixels, and a class token
    _, path = timms("levit_128s", 96)
    with pytest.raises(ArgumentError, match="^image_size=64: levit_128s does not support it with these weights"):
        Pretrained(2, 64, "timm/levit_128s", str(path))
    with pytest.raises(ArgumentError, match="^weights=.*not test_vit in timm's layout"):
        Pretrained(2, 64, "timm/test_vit", str(path))


def test_position_embeddings_are_resampled_as_timm_does(timms):
    _, path = timms("test_vit", 160)
    overlay = {"file": str(path)}
    theirs = timm.create_model("test_vit", True, pretrained_cfg_overlay=overlay, img_size=96).eval()
    ours = Pretrained(2, 96, "timm/test_vit", str(path)).eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.frozen(images), features_of(theirs, images), rtol=1e-3, atol=1e-4)


def test_file_of_a_network_with_other_classes(tmp_path):
    network = timm.create_model("test_efficientnet", num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "five.pth")
    ours = Pretrained(2, 64, "timm/test_efficientnet", str(tmp_path / "five.pth")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.frozen(images), features_of(network, images), rtol=1e-3, atol=1e-4)
    assert not any(p.shape == (5,) for p in ours.parameters())


def test_file_without_the_last_layer(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=0).eval()
    torch.save(network.state_dict(), tmp_path / "headless.pth")
    found = Pretrained(2, 64, "timm/test_efficientnet", str(tmp_path / "headless.pth"))
    images = torch.rand(2, 3, 64, 64)
    expected = network(found.frozen.preprocess(images))
    torch.testing.assert_close(found.frozen(images).flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_link_to_a_file_is_read_by_its_own_name(timms, tmp_path):
    """The cache of the Hugging Face hub has links to files without a suffix."""
    network = timm.create_model("test_efficientnet")
    save_file(network.state_dict(), tmp_path / "3fa9")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "3fa9")
    found = Pretrained(2, 64, "timm/test_efficientnet", str(tmp_path / "model.safetensors"))
    assert found.frozen_source.name == str(tmp_path / "model.safetensors")


def test_without_timm_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, provider.__name__)
    with pytest.raises(ArgumentError) as error:
        Pretrained(2, 64, "timm/resnet18", weights=None)
    needed = "this needs timm, which is not installed: pip install -e '.[timm]'"
    assert str(error.value) == f"backbone='timm/resnet18': {needed}"


def test_values_that_a_network_keeps_in_evaluation_mode_do_not_outlive_its_weights():
    """LeViT keeps attention biases once it has been evaluated."""
    torch.manual_seed(0)
    trained = Pretrained(3, 64, "timm/levit_128s", None).eval()
    for name, parameter in trained.named_parameters():
        if name.endswith("attention_biases"):
            nn.init.normal_(parameter)
    again = Pretrained(**trained.arguments)
    again.load_state_dict(trained.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        again.eval(), trained.train().eval()
        expected = nn.Sequential(*trained.frozen.train().children(), trained.trainable.eval())
        torch.testing.assert_close(again(images), expected(images))


@pytest.mark.slow
def test_key_is_the_same_in_another_process():
    code = (
        "import torch; from transfer_learning.models.pretrained import Pretrained; torch.manual_seed(0);"
        "print(*(Pretrained(2, 64, f'timm/{name}', None).frozen.key for name in ('test_vit3', 'test_efficientnet')))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    torch.manual_seed(0)
    assert found == [Pretrained(2, 64, f"timm/{name}", None).frozen.key for name in ("test_vit3", "test_efficientnet")]


def test_batch_norms_of_unfrozen_blocks_stay_frozen():
    network = Pretrained(2, 64, "timm/test_efficientnet", None, unfreeze="block3").train()
    norms = [layer for layer in network.trainable.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    network(torch.rand(4, 3, 64, 64))
    assert norms and all(torch.equal(mean, norm.running_mean) for mean, norm in zip(before, norms))
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert any(type(norm) is not nn.BatchNorm2d for norm in norms)  # timm's own, with an activation


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit", "swin_s3_tiny_224"])
def test_grad_cam_needs_maps(name):
    network = Pretrained(2, 64, f"timm/{name}", None).eval()
    images, codes = torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    if "vit" in name or "swin" in name:
        with pytest.raises(UserError, match="^Grad-CAM needs a convolutional network"):
            grad_cam(network, images, codes)
    else:
        assert grad_cam(network, images, codes).shape == (2, 2, 2)
    assert f"frozen parameters: {sum(p.numel() for p in network.frozen.parameters()):,}" in layer_table(network, 64)
