import hashlib
import urllib.error

import pytest
import torch
from torchvision.models import VGG16_Weights, vgg16

from transfer_learning.models.backbones import input_spec
from transfer_learning.models.backbones.torchvision import weights_entry
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import ArgumentError, UserError


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


@pytest.mark.parametrize("as_text", [True, False])
def test_weights_from_a_file_with_the_preprocessing_that_torchvision_documents(random_file, as_text):
    path, features = random_file
    network = Pretrained(2, 64, "vgg16", weights=str(path) if as_text else path, pool="none")
    images = torch.rand(2, 3, 64, 64)
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms(crop_size=64, resize_size=64)
    with torch.no_grad():
        torch.testing.assert_close(network.frozen(images), features(preset(images)), rtol=1e-4, atol=1e-4)
    assert network.frozen_source.name == str(path)
    assert network.frozen_source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_published_weights_are_read_from_torchs_cache(random_file, tmp_path, monkeypatch):
    path, features = random_file
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16_features-amdegroot-88682ab5.pth").write_bytes(path.read_bytes())
    network = Pretrained(2, 32, "vgg16", weights="IMAGENET1K_FEATURES")
    assert torch.equal(network.frozen.block1[0].weight, features[0].weight)
    assert network.frozen_source.name == "IMAGENET1K_FEATURES"


@pytest.mark.parametrize(
    "fault", [urllib.error.URLError("no network"), RuntimeError("no network, and an invalid hash value")]
)
def test_failed_download_is_one_error_that_lists_the_alternatives(tmp_path, monkeypatch, fault):
    def offline(*arguments, **settings):
        raise fault

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ArgumentError, match="^weights='IMAGENET1K_FEATURES': .*no network") as error:
        Pretrained(2, 64, "vgg16", weights="IMAGENET1K_FEATURES")
    for alternative in (str(tmp_path), "https://", "name a file as `weights`", "random weights (null)"):
        assert alternative in str(error.value)
    assert "\n" not in str(error.value)


def other_network(path):
    torch.save({"features.0.weight": torch.zeros(5, 3, 3, 3)}, path)


def pickled_code(path):
    torch.save({"features.0.weight": print}, path)


def truncated(path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "no such file"),
        (other_network, "not vgg16 at 64 pixels"),
        (pickled_code, "not a state_dict that can be read safely"),
        (truncated, "not a state_dict that can be read safely"),
        (lambda path: path.write_text("weights"), "not a state_dict that can be read safely"),
        (lambda path: torch.save([1, 2], path), "not a state_dict that can be read safely"),
    ],
)
def test_unusable_files_of_weights(tmp_path, write, message):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ArgumentError, match=message) as error:
        Pretrained(2, 64, "vgg16", weights=str(path))
    assert str(error.value).startswith(f"weights={str(path)!r}: ") and "\n" not in str(error.value)


def test_other_checksum_is_refused(random_file):
    path, _ = random_file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Pretrained(2, 32, "vgg16", weights=str(path), sha256=digest).frozen_source.sha256 == digest
    with pytest.raises(UserError, match=f"SHA-256 is {digest}, expected {'0' * 64}"):
        Pretrained(2, 32, "vgg16", weights=str(path), sha256="0" * 64)


def test_original_vgg16_weights(vgg16_file):
    """Input range as Keras and torchvision document it, and a plausible range of features."""
    network = Pretrained(2, 150, "vgg16", weights=str(vgg16_file), pool="none")
    assert network.frozen[0].mean.flatten().tolist() == pytest.approx([0.48235, 0.45882, 0.40784])
    assert network.frozen[0].std.flatten().tolist() == pytest.approx([1 / 255] * 3)
    features = network.frozen(torch.rand(1, 3, 150, 150))
    assert features.shape == (1, 512, 4, 4) and features.min() >= 0 and 1 < features.max() < 1000


@pytest.mark.parametrize(
    "backbone, size", [("resnet50", 224), ("efficientnet_v2_s", 384), ("convnext_tiny", 224), ("vit_b_16", 224)]
)
def test_image_size_is_that_of_the_weights(backbone, size):
    """Sizes as torchvision's page of each network documents them."""
    for weights in ("DEFAULT", "some/file.pth", None):
        assert input_spec(backbone, weights).image_size == size


def test_input_is_that_of_the_weights():
    assert input_spec("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").image_size == 384
    assert input_spec("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").interpolation == "bicubic"
    caffe, default = (input_spec("vgg16", name) for name in ("IMAGENET1K_FEATURES", "DEFAULT"))
    assert caffe.std == pytest.approx([1 / 255] * 3) and default.std == pytest.approx([0.229, 0.224, 0.225])
    assert (caffe.interpolation, default.weights) == ("bilinear", "VGG16_Weights.IMAGENET1K_V1")
    for weights in (None, "a/file.pth"):
        assert weights_entry("vgg16", weights) is VGG16_Weights.IMAGENET1K_FEATURES


def test_published_file_is_recognized_by_its_checksum_whatever_its_name(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    assert weights_entry("vgg16", str(path)) is VGG16_Weights.IMAGENET1K_FEATURES
    digest = hashlib.sha256(b"weights").hexdigest()
    assert VGG16_Weights.IMAGENET1K_V1.url.endswith("vgg16-397923af.pth")  # the first digits of the SHA-256
    monkeypatch.setattr(
        "transfer_learning.models.backbones.torchvision._hash_in_name",
        lambda known: {"IMAGENET1K_V1": digest[:8]}.get(known.name, "-"),
    )
    assert weights_entry("vgg16", str(path)) is VGG16_Weights.IMAGENET1K_V1


def test_unknown_backbone():
    with pytest.raises(
        ArgumentError, match="^backbone='resnet5': no such network in torchvision; did you mean resnet50 or"
    ):
        Pretrained(2, 64, "resnet5")
