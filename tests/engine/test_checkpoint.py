import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics.classification import MulticlassF1Score

from transfer_learning import load
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.checkpoint import _check_shapes, read_checkpoint
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.models import pretrained as pretrained_module
from transfer_learning.models.network import Frozen, Network
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.utilities.errors import UserError

IMAGES = torch.rand(4, 3, 32, 32)
SMALL = dict(num_classes=2, image_size=32, channels=[4, 8], dense=[16], dropout=0.0)  # as `small_model`
HEAD = ["network.trainable.head.1.weight", "network.trainable.head.1.bias"]
NORMALIZATION = ["network.frozen.preprocess.mean", "network.frozen.preprocess.std"]


class Allocations(TorchDispatchMode):
    """Within the block, `most` are the bytes of the largest tensor that is made with memory."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        self.most = max([self.most, *(each.nbytes for each in tensors if each.device.type != "meta")])
        return result


@pytest.fixture
def saved(quiet_trainer):
    """saved(model, data, path, weights_only): the model after one epoch, saved as ModelCheckpoint saves it."""

    def run(model, data, path, weights_only=False, **settings):
        trainer = quiet_trainer(max_epochs=1, **settings)
        trainer.fit(model, datamodule=data)
        trainer.save_checkpoint(path, weights_only)
        return model.eval()

    return run


@pytest.fixture
def vgg16(classifier):
    """vgg16(weights, **settings): a classifier with a head on VGG16."""

    def make(weights, **settings):
        torch.manual_seed(0)
        defaults = dict(layer_norm=False, dropout=0.0, unfreeze_at_epoch=0)
        network = Pretrained(2, 32, "vgg16", weights=weights, **defaults | settings)
        return classifier(network, optimizer=lambda groups: torch.optim.SGD(groups, 0.01))

    return make


def save_convolutions(path):
    """Random ones, in torchvision's layout."""
    state = Pretrained(2, 32, "vgg16", weights=None).frozen.state_dict()
    convolutions = {key: value for key, value in state.items() if key.startswith("block")}
    torch.save({f"features.{key.split('.', 1)[1]}": value for key, value in convolutions.items()}, path)


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.manual_seed(5)
    save_convolutions(path)
    return path


def is_plain(value):
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(each) for each in value)
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


@pytest.mark.parametrize("weights_only", [False, True])
def test_plain_values_and_tensors_rebuild_the_model(saved, small_data, small_model, tmp_path, weights_only):
    path = tmp_path / "model.ckpt"
    model = saved(small_model(dropout=0.5), small_data(), path, weights_only)
    checkpoint = torch.load(path, weights_only=True)
    assert is_plain({key: value for key, value in checkpoint.items() if key != "state_dict"})
    assert is_plain(dict(checkpoint["state_dict"]))
    loaded = load(path)
    assert not loaded.training and loaded.class_names == ("cat", "dog")
    assert loaded.preprocessing == Preprocessing(32)
    assert torch.equal(loaded(IMAGES), model(IMAGES))


def test_preprocessing_and_precision_of_the_training(saved, small_data, small_model, tmp_path):
    path, data = tmp_path / "model.ckpt", small_data(interpolation="nearest", resize="crop")
    model = small_model()
    assert not model.trained_precision
    model = Classifier(model.network, data.class_names, data.preprocessing, model.optimizer)
    saved(model, data, path, precision="bf16-mixed")
    about = torch.load(path, weights_only=True)["model"]
    expected = {"image_size": 32, "interpolation": "nearest", "resize": "crop", "depth": None, "crop_pct": 1.0}
    assert about["preprocessing"] == expected
    loaded = load(path)
    assert loaded.preprocessing == data.preprocessing == Preprocessing(32, "nearest", "crop")
    assert loaded.trained_precision == about["precision"] == "bf16-mixed"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    expected = image.crop((12, 0, 52, 40)).resize((32, 32), Image.Resampling.NEAREST)
    assert np.array_equal(loaded.preprocessing(image), np.asarray(expected))


def test_normalization_is_that_of_the_training(saved, small_data, vgg16, weights_file, tmp_path):
    """Other files and versions of a library may give the same weights other means."""
    path, model = tmp_path / "model.ckpt", vgg16(str(weights_file))
    model.network.frozen.preprocess.mean.fill_(0.4)
    saved(model, small_data(), path)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert [key for key in state if key.startswith("network.frozen.")] == NORMALIZATION
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_model_with_further_metrics_is_loaded_without_them(saved, small_data, small_model, tmp_path):
    path = tmp_path / "model.ckpt"
    model = saved(small_model(metrics={"f1": MulticlassF1Score}), small_data(), path)
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_a_loaded_model_has_the_objective_cross_entropy(saved, small_data, small_model, tmp_path):
    """docs/code.md says so: a checkpoint does not hold the objective."""

    class Doubled(CrossEntropy):
        def losses(self, logits, targets):
            return 2 * super().losses(logits, targets)

    saved(small_model(objective=Doubled()), small_data(), tmp_path / "model.ckpt")
    assert type(load(tmp_path / "model.ckpt").objective) is CrossEntropy


def test_frozen_weights_of_a_file_are_named_and_left_out(saved, small_data, vgg16, tmp_path, weights_file):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(str(weights_file)), small_data(), path)
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {*HEAD, *NORMALIZATION}
    assert path.stat().st_size < 100_000
    assert checkpoint["model"]["frozen_weights"]["name"] == str(weights_file)
    assert torch.equal(load(path)(IMAGES), model(IMAGES))

    moved = weights_file.rename(tmp_path / "moved.pth")
    with pytest.raises(UserError, match="no such file"):
        load(path)
    assert torch.equal(load(path, weights=str(moved))(IMAGES), model(IMAGES))

    torch.manual_seed(6)
    save_convolutions(weights_file)
    with pytest.raises(UserError, match="SHA-256"):
        load(path)


@pytest.mark.parametrize("unfreeze", ["block5", "block4", "all"])
def test_trained_weights_and_only_those_are_saved(saved, small_data, vgg16, tmp_path, weights_file, unfreeze):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(str(weights_file), unfreeze=unfreeze), small_data(), path, weights_only=True)
    kept = set(torch.load(path, weights_only=True)["state_dict"])
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert kept == trained | set(NORMALIZATION)
    if unfreeze == "all":  # the checkpoint does not need the file
        weights_file.unlink()
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_random_frozen_weights_are_saved(saved, small_data, vgg16, tmp_path):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(None), small_data(), path, weights_only=True)
    assert path.stat().st_size > 14_714_688 * 4
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_training_is_resumed_without_the_frozen_weights(
    saved, quiet_trainer, small_data, vgg16, tmp_path, weights_file
):
    """Loading stays strict although frozen weights are left out, and reads plain values only."""
    path = tmp_path / "model.ckpt"
    data = small_data()
    saved(vgg16(str(weights_file)), data, path)
    model = vgg16(str(weights_file))
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    assert trainer.current_epoch == 2


def test_training_is_not_resumed_with_other_frozen_weights(
    saved, quiet_trainer, small_data, vgg16, tmp_path, weights_file
):
    path, data = tmp_path / "model.ckpt", small_data()
    saved(vgg16(str(weights_file)), data, path)
    torch.manual_seed(6)
    save_convolutions(weights_file)
    with pytest.raises(UserError, match=f"^weights='{weights_file}': not the weights of the training"):
        quiet_trainer(max_epochs=2).fit(vgg16(str(weights_file)), datamodule=data, ckpt_path=path, weights_only=True)


def test_training_of_another_network_is_not_resumed(
    saved, quiet_trainer, small_data, small_model, pretrained, tmp_path
):
    path, data = tmp_path / "model.ckpt", small_data()
    saved(small_model(), data, path)
    with pytest.raises(UserError, match="the checkpoint is of another network: "):
        quiet_trainer(max_epochs=2).fit(pretrained(), datamodule=data, ckpt_path=path, weights_only=True)


class OwnNetwork(Network):
    """A network outside of the package."""

    def __init__(self, num_classes: int, image_size: int, width: int = 4):
        layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1)]
        arguments = {"num_classes": num_classes, "image_size": image_size, "width": width}
        super().__init__(Frozen(), nn.Sequential(*layers), arguments)


def test_own_network_class_is_passed_to_load(saved, small_data, classifier, tmp_path):
    path = tmp_path / "model.ckpt"
    network = OwnNetwork(2, 32, width=6)
    model = saved(classifier(network, optimizer=lambda groups: torch.optim.SGD(groups, 0.01)), small_data(), path)
    with pytest.raises(UserError, match=r"OwnNetwork.*load\(path, networks=\[\.\.\.\]\)") as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    loaded = load(path, networks=[Pretrained, OwnNetwork])
    assert type(loaded.network) is OwnNetwork and torch.equal(loaded(IMAGES), model(IMAGES))


@pytest.fixture
def altered(saved, small_data, small_model, tmp_path):
    """altered(**values): the path of a checkpoint whose description of the model has other values."""
    path = tmp_path / "model.ckpt"
    saved(small_model(), small_data(), path)
    checkpoint = torch.load(path, weights_only=True)

    def make(**values):
        torch.save(checkpoint | {"model": checkpoint["model"] | values}, path)
        return path

    return make


@pytest.mark.parametrize(
    "module, name",
    [
        ("transfer_learning.models.pretrained", "Normalize"),
        ("transfer_learning.models.pretrained", "FineTuned"),
        ("transfer_learning.models.pretrained", "keras_init"),
        ("transfer_learning.models.pretrained", "Missing"),
        ("transfer_learning.models.missing", "CNN"),
        ("transfer_learning.modelsx.cnn", "CNN"),
        ("transfer_learning.engine.classifier", "Classifier"),
        ("torch.nn", "Linear"),
    ],
)
def test_class_that_is_no_network_of_the_package_is_refused(altered, monkeypatch, module, name):
    def must_not_be_called(*arguments, **settings):
        raise AssertionError("called")

    for attribute in ("Normalize", "FineTuned"):
        monkeypatch.setattr(getattr(pretrained_module, attribute), "__init__", must_not_be_called)
    monkeypatch.setattr(pretrained_module, "keras_init", must_not_be_called)
    with pytest.raises(UserError, match=f"{module}.{name} is not a network of transfer_learning.models") as error:
        load(altered(network={"module": module, "class": name}))
    assert "\n" not in str(error.value)


def test_module_outside_the_package_is_not_imported(altered, tmp_path, monkeypatch):
    code = "from transfer_learning.models.cnn import CNN\nraise AssertionError('imported')\n"
    (tmp_path / "foreign_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("foreign_module", ".foreign_module", "transfer_learning.models.", "transfer_learning.models.."):
        with pytest.raises(UserError, match="is not a network of transfer_learning.models"):
            load(altered(network={"module": module, "class": "CNN"}))
    assert "foreign_module" not in sys.modules


@pytest.mark.parametrize(
    "values",
    [
        {"network": {}},
        {"network": {"module": 1, "class": 2}},
        {"network": None},
        {"arguments": [1]},
        {"arguments": {"layers": 3}},
        {"arguments": {"num_classes": 2, "image_size": "32"}},
        {"preprocessing": {"image_size": 32, "crop": True}},
        {"preprocessing": {"image_size": 32, "interpolation": "lanczos"}},
        {"preprocessing": None},
        {"frozen_weights": {"name": "DEFAULT"}},
        {"class_names": 3},
    ],
)
def test_unknown_values_are_one_error(altered, values):
    path = altered(**values)
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_size": 10**6},
        {"dense": [10**7]},
        {"channels": [8, -1]},
        {"channels": [16, 10**5]},
        {"dropout": None},
        {"dense": "many"},
        {"other": 1},
        None,
        [],
    ],
)
def test_foreign_arguments_are_one_line_and_fill_no_memory(altered, arguments):
    """The network is built with shapes alone, and compared with the tensors of the file."""
    changed = {**SMALL, **arguments} if isinstance(arguments, dict) else arguments
    path = altered(arguments=changed)
    with pytest.raises(UserError, match="its network cannot be built: ") as error, Allocations() as made:
        load(path)
    assert "\n" not in str(error.value) and made.most < 10**6


@pytest.mark.parametrize("backbone, pool", [("vgg11", "none"), ("resnet18", "average"), ("vit_b_32", "average")])
def test_foreign_arguments_of_a_backbone_fill_no_memory(backbone, pool):
    network = Pretrained(2, 32, backbone, weights=None, pool=pool, dense=[4], layer_norm=False)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    without_frozen = {key: value for key, value in state.items() if "trainable" in key}
    with Allocations() as made:
        for each in (state, without_frozen):
            _check_shapes(Pretrained, network.arguments, each)
            for foreign in [{"dense": [10**9]}, {"dense": []}] + [{"image_size": 1312}] * (pool == "none"):
                with pytest.raises(UserError, match="its trainable.head.* expected"):
                    _check_shapes(Pretrained, network.arguments | foreign, each)
    assert made.most < 10**6


def test_an_exported_model_is_no_checkpoint(tmp_path):
    """torch.export's files are ZIP files too."""
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), tmp_path / "model.pt2")
    with pytest.raises(UserError, match="torch.save has not written it: an exported model is no checkpoint"):
        read_checkpoint(tmp_path / "model.pt2")


def test_a_compressed_file_is_refused_before_it_is_unpacked(saved, small_data, small_model, tmp_path):
    """A file of a few megabytes may have gigabytes in it; torch does not compress."""
    saved(small_model(), small_data(), tmp_path / "stored.ckpt")
    read_checkpoint(tmp_path / "stored.ckpt")
    with zipfile.ZipFile(tmp_path / "stored.ckpt") as source, zipfile.ZipFile(tmp_path / "a.ckpt", "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match="it is compressed, which torch does not do"):
        read_checkpoint(tmp_path / "a.ckpt")


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, checkpoint: torch.save(checkpoint | {"model": Harmful()}, path),
        lambda path, checkpoint: torch.save({"state_dict": {}}, path),
        lambda path, checkpoint: torch.save(checkpoint | {"model": {"network": "os.system"}}, path),
        lambda path, checkpoint: torch.save(checkpoint | {"model": {"network": checkpoint["model"]["network"]}}, path),
        lambda path, checkpoint: torch.save([1, 2], path),
        lambda path, checkpoint: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path, checkpoint: path.write_bytes(b""),
        lambda path, checkpoint: path.unlink(),
    ],
)
def test_other_files_are_refused_in_one_line_and_run_no_code(saved, small_data, small_model, tmp_path, capsys, write):
    path = tmp_path / "model.ckpt"
    saved(small_model(), small_data(), path)
    write(path, torch.load(path, weights_only=True))
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value) and "never be printed" not in capsys.readouterr().out


def test_every_changed_byte_is_noticed_or_harmless(saved, small_data, small_model, tmp_path):
    """At 150 random places and at both ends: the content is as it was written, or the file is refused."""
    path = tmp_path / "model.ckpt"
    saved(small_model(), small_data(), path)
    whole, expected = path.read_bytes(), read_checkpoint(path)
    places = [*np.random.default_rng(0).integers(len(whole), size=150), *range(20), *range(len(whole) - 50, len(whole))]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(place) % 8]) + whole[place + 1 :])
        try:
            found = read_checkpoint(path)
        except UserError:
            refused += 1
        else:
            state = found["state_dict"]
            assert found["epoch"] == expected["epoch"] and found["model"] == expected["model"], place
            assert all(torch.equal(state[key], value) for key, value in expected["state_dict"].items()), place
    assert refused > 100
