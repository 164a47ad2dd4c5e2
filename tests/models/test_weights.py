import hashlib

import pytest
import torch

from transfer_learning.models import weights
from transfer_learning.models.weights import read_state_dict, resolve_weights_file
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.files import file_sha256


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_state_dict_and_checksum_of_a_file(tmp_path):
    path, state = tmp_path / "weights.pth", {"layer.weight": torch.rand(3, 4), "layer.bias": torch.rand(3)}
    torch.save(state, path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    for sha256 in (None, expected):
        found, digest = read_state_dict(path, str(path), sha256)
        assert digest == expected == file_sha256(path)
        assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


def test_checksum_is_computed_once_and_again_if_the_file_changes(tmp_path, monkeypatch):
    path, computed = tmp_path / "weights.pth", []
    monkeypatch.setattr(weights, "file_sha256", lambda path: computed.append(path) or str(len(computed)))
    for content in ("one", "another"):
        path.write_text(content)
        assert len({weights.weights_sha256(path) for _ in range(3)}) == 1
    assert computed == [path, path]


def test_other_checksum_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.rand(2)}, path)
    with pytest.raises(UserError, match=f"{file_sha256(path)}, expected 0123: .*not the weights of the training"):
        read_state_dict(path, "mine", "0123")


@pytest.mark.parametrize("content", [{"weight": Harmful()}, {"weight": 1.0}, [torch.rand(2)], "weights"])
def test_files_that_hold_no_state_dict_are_refused_and_run_no_code(tmp_path, capsys, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ArgumentError, match="^weights='mine': .*not a state_dict that can be read safely") as error:
        read_state_dict(path, "mine")
    assert "\n" not in str(error.value) and "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_inside_a_checkpoint_are_said_to_be_there(tmp_path, key):
    torch.save({key: {"weight": torch.rand(2)}, "epoch": 9}, tmp_path / "weights.pth")
    with pytest.raises(ArgumentError, match=f"are the weights in {key}\\? Save that alone with torch.save"):
        read_state_dict(tmp_path / "weights.pth", "mine")


def test_keys_of_data_parallel(tmp_path):
    torch.save({"module.weight": torch.ones(2), "module.module.bias": torch.zeros(2)}, tmp_path / "weights.pth")
    assert set(read_state_dict(tmp_path / "weights.pth", "mine")[0]) == {"weight", "module.bias"}


def test_safetensors_that_is_not_installed_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    monkeypatch.setattr("transfer_learning.utilities.errors.find_spec", lambda module: None)
    message = r"^weights='mine': this needs safetensors, which is not installed: pip install -e '\.\[timm\]'$"
    with pytest.raises(ArgumentError, match=message):
        read_state_dict(path, "mine")


@pytest.fixture
def weights_folder(tmp_path):
    """weights_folder(*names): a folder with empty files of these names."""

    def make(*names):
        for name in names:
            (tmp_path / name).write_text("")
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    "network, file",
    [
        ("resnet18", "resnet18-f37072fd.pth"),  # and not wide_resnet18-... or resnet18_b-...
        ("resnet18_b", "resnet18_b-1.pth"),
        ("vgg16", "vgg16_features-imagenet.pth"),
        ("a.b", "a.b.pt"),
        ("resnet18.a1_in1k", "resnet18-f37072fd.pth"),
        ("net[1]", "net[1].safetensors"),
    ],
)
def test_file_in_a_folder_that_is_named_after_the_network(weights_folder, network, file):
    names = ["resnet18-f37072fd.pth", "wide_resnet18-1.pth", "resnet18_b-1.pth", "resnet18.txt", "net1.pth"]
    folder = weights_folder(*names, "vgg16_features-imagenet.pth", "a.b.pt", "axb.pth", "net[1].safetensors")
    assert resolve_weights_file(network, folder) == f"{folder}/{file}"


def test_weights_that_are_no_folder_are_as_they_were(weights_folder):
    file = f"{weights_folder('resnet18.pth')}/resnet18.pth"
    for name in (file, "DEFAULT", None, ""):
        assert resolve_weights_file("resnet18", name) == name


def test_folder_without_the_file_or_with_several(weights_folder):
    folder = weights_folder("vgg16_a.pth", "vgg16_b.pth")
    with pytest.raises(ArgumentError, match=r"has several files for vgg16 \(vgg16_a.pth, vgg16_b.pth\); name one"):
        resolve_weights_file("vgg16", folder)
    with pytest.raises(ArgumentError, match="^weights='.*': this folder has no weights of resnet18; expected resnet18"):
        resolve_weights_file("resnet18", folder)
