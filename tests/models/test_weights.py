import hashlib
import urllib.error

import pytest
import torch
from torchvision.models import VGG16_Weights, vgg16

from transfer_learning.errors import UserError
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.weights import entry, input_size


@pytest.fixture(scope="module")
def random_file(tmp_path_factory):
    """VGG16's convolutions with random weights, in torchvision's layout."""
    torch.manual_seed(7)
    with torch.device("meta"):
        features = vgg16().features
    features = features.to_empty(device="cpu")
    for parameter in features.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, path)
    return path, features.eval()


def test_weights_from_a_file_with_the_preprocessing_that_torchvision_documents(random_file):
    path, features = random_file
    network = Pretrained(2, 64, weights=str(path), pool="none")
    images = torch.rand(2, 3, 64, 64)
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms(crop_size=64, resize_size=64)
    with torch.no_grad():
        torch.testing.assert_close(network.frozen(images), features(preset(images)), rtol=1e-4, atol=1e-4)
    assert network.frozen_source.name == str(path)
    assert network.frozen_source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_name_is_torchvisions_file_in_torchs_cache(random_file, tmp_path, monkeypatch):
    path, features = random_file
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16_features-amdegroot-88682ab5.pth").write_bytes(path.read_bytes())
    network = Pretrained(2, 32, weights="IMAGENET1K_FEATURES")
    assert torch.equal(network.frozen.block1[0].weight, features[0].weight)
    assert network.frozen_source.name == "IMAGENET1K_FEATURES"


@pytest.mark.parametrize(
    "fault", [urllib.error.URLError("no network"), RuntimeError("no network, and an invalid hash value")]
)
def test_offline_and_not_cached_is_one_error_with_the_ways_on(tmp_path, monkeypatch, fault):
    def offline(*arguments, **settings):
        raise fault

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match="no network") as error:
        Pretrained(2, 64, weights="IMAGENET1K_FEATURES")
    for way in (str(tmp_path), "https://", "model.weights=…", "model.weights=null"):
        assert way in str(error.value)


def other_network(path):
    torch.save({"features.0.weight": torch.zeros(5, 3, 3, 3)}, path)


def pickled_code(path):
    torch.save({"features.0.weight": print}, path)


def cut_off(path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "no such file"),
        (other_network, "not vgg16 at 64 pixels"),
        (pickled_code, "not a state_dict that can be read safely"),
        (cut_off, "not a state_dict that can be read safely"),
        (lambda path: path.write_text("weights"), "not a state_dict that can be read safely"),
        (lambda path: torch.save([1, 2], path), "not a state_dict that can be read safely"),
    ],
)
def test_a_file_that_will_not_do(tmp_path, write, message):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=message) as error:
        Pretrained(2, 64, weights=str(path))
    assert f"model.weights={path}" in str(error.value)


def test_the_real_weights(vgg16_file):
    """The first kernel of the original Caffe weights, as Keras and torchvision document their range, and a fingerprint of the file."""
    network = Pretrained(2, 150, weights=str(vgg16_file), pool="none")
    assert network.frozen[0].mean.flatten().tolist() == pytest.approx([0.48235, 0.45882, 0.40784])
    assert network.frozen[0].std.flatten().tolist() == pytest.approx([1 / 255] * 3)
    features = network.frozen(torch.rand(1, 3, 150, 150))
    assert features.shape == (1, 512, 4, 4) and features.min() >= 0 and 1 < features.max() < 1000


@pytest.mark.parametrize(
    "backbone, size", [("resnet50", 224), ("efficientnet_v2_s", 384), ("convnext_tiny", 224), ("vit_b_16", 224)]
)
def test_image_size_and_preprocessing_are_the_weights_own(backbone, size):
    """Sizes as torchvision's page of each network documents them."""
    assert input_size(backbone) == input_size(backbone, "some/file.pth") == size


def test_two_weights_of_one_network_differ_in_preprocessing():
    assert input_size("vit_b_16", "IMAGENET1K_SWAG_E2E_V1") == 384
    caffe, default = (entry("vgg16", name).transforms() for name in ("IMAGENET1K_FEATURES", "DEFAULT"))
    assert caffe.std == pytest.approx([1 / 255] * 3) and default.std == pytest.approx([0.229, 0.224, 0.225])
    assert entry("vgg16", None) is entry("vgg16", "a/file.pth") is VGG16_Weights.IMAGENET1K_FEATURES


def test_a_published_file_is_known_by_its_checksum_whatever_it_is_called(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    assert entry("vgg16", str(path)) is VGG16_Weights.IMAGENET1K_FEATURES
    digest = hashlib.sha256(b"weights").hexdigest()
    assert VGG16_Weights.IMAGENET1K_V1.url.endswith("vgg16-397923af.pth")  # the first digits of the SHA-256
    monkeypatch.setattr(
        "transfer_learning.models.weights._hash_in_name",
        lambda known: {"IMAGENET1K_V1": digest[:8]}.get(known.name, "-"),
    )
    assert entry("vgg16", str(path)) is VGG16_Weights.IMAGENET1K_V1


def test_no_such_network():
    with pytest.raises(UserError, match="model.backbone=resnet5: expected one of torchvision's"):
        Pretrained(2, 64, "resnet5")
