import hashlib
import urllib.error

import pytest
import torch
from torchvision.models import VGG16_Weights, vgg16

from transfer_learning.callbacks.layer_table import count_parameters
from transfer_learning.errors import UserError
from transfer_learning.models.vgg16 import FrozenVGG16


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


def test_as_many_parameters_as_the_tutorial():
    assert count_parameters(FrozenVGG16(2, 150, weights=None)) == (4_457_985, 14_714_688)


def test_weights_from_a_file_with_the_preprocessing_that_torchvision_documents(random_file):
    path, features = random_file
    network = FrozenVGG16(2, 64, weights=str(path))
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
    network = FrozenVGG16(2, 32, weights="IMAGENET1K_FEATURES")
    assert torch.equal(network.frozen[1][0].weight, features[0].weight)
    assert network.frozen_source.name == "IMAGENET1K_FEATURES"


@pytest.mark.parametrize("fault", [urllib.error.URLError("no network"), RuntimeError("no network, and an invalid hash value")])
def test_offline_and_not_cached_is_one_error_with_the_ways_on(tmp_path, monkeypatch, fault):
    def offline(*arguments, **settings):
        raise fault

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match="no network") as error:
        FrozenVGG16(2, 64)
    for way in (str(tmp_path), "https://", "model.weights=…", "VGG16_WEIGHTS", "model.weights=null"):
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
        (other_network, "not VGG16's convolutions"),
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
        FrozenVGG16(2, 64, weights=str(path))
    assert f"model.weights={path}" in str(error.value)


def test_an_image_too_small():
    with pytest.raises(UserError, match="data.image_size=31.*at least 32"):
        FrozenVGG16(2, 31, weights=None)


def test_the_real_weights(vgg16_file):
    """The first kernel of the original Caffe weights, as Keras and torchvision document their range, and a fingerprint of the file."""
    network = FrozenVGG16(2, 150, weights=str(vgg16_file))
    assert network.frozen[0].mean.flatten().tolist() == pytest.approx([0.48235, 0.45882, 0.40784])
    assert network.frozen[0].std.flatten().tolist() == pytest.approx([1 / 255] * 3)
    features = network.frozen(torch.rand(1, 3, 150, 150))
    assert features.shape == (1, 512, 4, 4) and features.min() >= 0 and 1 < features.max() < 1000
