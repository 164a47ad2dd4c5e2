import numpy as np
import pytest
import torch

from transfer_learning import load
from transfer_learning.checkpoint import CheckpointFile, read
from transfer_learning.errors import UserError
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.pretrained import Pretrained

IMAGES = torch.rand(4, 3, 32, 32)


@pytest.fixture
def saved(quiet_trainer):
    """saved(model, data, path, weights_only): trains one epoch, saves as ModelCheckpoint does, and gives the model back."""

    def run(model, data, path, weights_only=False):
        trainer = quiet_trainer(max_epochs=1)
        trainer.fit(model, datamodule=data)
        trainer.save_checkpoint(path, weights_only)
        return model.eval()

    return run


def vgg16(weights, **settings):
    torch.manual_seed(0)
    network = Pretrained(2, 32, weights=weights, **settings)
    return Classifier(network, ("cat", "dog"), 32, lambda parameters: torch.optim.SGD(parameters, 0.01))


def save_convolutions(path):
    """Random ones, in torchvision's layout."""
    state = Pretrained(2, 32, weights=None).frozen.state_dict()
    torch.save(
        {f"features.{key.split('.', 1)[1]}": value for key, value in state.items() if key.startswith("block")}, path
    )


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.manual_seed(5)
    save_convolutions(path)
    return path


def plain(value):
    if isinstance(value, dict):
        return all(plain(key) and plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(each) for each in value)
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


@pytest.mark.parametrize("weights_only", [False, True])
def test_it_holds_plain_values_and_tensors_and_rebuilds_the_model(
    saved, small_data, small_model, tmp_path, weights_only
):
    path = tmp_path / "model.ckpt"
    model = saved(small_model(dropout=0.5), small_data(), path, weights_only)
    checkpoint = torch.load(path, weights_only=True)
    assert plain({key: value for key, value in checkpoint.items() if key != "state_dict"}) and plain(
        dict(checkpoint["state_dict"])
    )
    loaded = load(path)
    assert not loaded.training and loaded.class_names == ("cat", "dog") and loaded.image_size == 32
    assert torch.equal(loaded(IMAGES), model(IMAGES))


def test_frozen_weights_of_a_file_are_named_and_left_out(saved, small_data, tmp_path, weights_file):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(str(weights_file)), small_data(), path)
    checkpoint = torch.load(path, weights_only=True)
    assert (
        set(checkpoint["state_dict"]) == {"network.trainable.head.1.weight", "network.trainable.head.1.bias"}
        and path.stat().st_size < 100_000
    )
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
def test_it_holds_what_was_trained_and_only_that(saved, small_data, tmp_path, weights_file, unfreeze):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(str(weights_file), unfreeze=unfreeze), small_data(), path, weights_only=True)
    kept, trained = (
        set(torch.load(path, weights_only=True)["state_dict"]),
        {key for key, p in model.named_parameters() if p.requires_grad},
    )
    preprocessing = {
        "network.frozen.preprocess.mean",
        "network.frozen.preprocess.std",
    }  # otherwise the weights' file tells it
    assert kept == trained | (preprocessing if unfreeze == "all" else set())
    if unfreeze == "all":  # everything is in it, so the file need not be
        weights_file.unlink()
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_random_frozen_weights_are_kept(saved, small_data, tmp_path):
    path = tmp_path / "model.ckpt"
    model = saved(vgg16(None), small_data(), path, weights_only=True)
    assert path.stat().st_size > 14_714_688 * 4
    assert torch.equal(load(path)(IMAGES), model(IMAGES))


def test_a_run_goes_on_from_it(saved, quiet_trainer, small_data, tmp_path, weights_file):
    """Loading stays strict although frozen weights are left out, and takes nothing but plain values."""
    path = tmp_path / "model.ckpt"
    data = small_data()
    saved(vgg16(str(weights_file)), data, path)
    model = vgg16(str(weights_file))
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    assert trainer.current_epoch == 2


def test_frozen_weights_that_were_exchanged_are_not_gone_on_with(
    saved, quiet_trainer, small_data, tmp_path, weights_file
):
    path, data = tmp_path / "model.ckpt", small_data()
    saved(vgg16(str(weights_file)), data, path)
    torch.manual_seed(6)
    save_convolutions(weights_file)
    with pytest.raises(
        UserError, match=f"model.weights={weights_file}: not the weights that the checkpoint was trained on"
    ):
        quiet_trainer(max_epochs=2).fit(vgg16(str(weights_file)), datamodule=data, ckpt_path=path, weights_only=True)


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, checkpoint: torch.save(checkpoint | {"model": Harmful()}, path),
        lambda path, checkpoint: torch.save({"state_dict": {}}, path),
        lambda path, checkpoint: torch.save(
            checkpoint | {"model": checkpoint["model"] | {"network": "os.system"}}, path
        ),
        lambda path, checkpoint: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path, checkpoint: path.write_bytes(b""),
        lambda path, checkpoint: path.unlink(),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused_in_one_line(saved, small_data, small_model, tmp_path, capsys, write):
    path = tmp_path / "model.ckpt"
    saved(small_model(), small_data(), path)
    write(path, torch.load(path, weights_only=True))
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value) and "never be printed" not in capsys.readouterr().out


def test_no_byte_of_it_can_change_unnoticed(saved, small_data, small_model, tmp_path):
    """At 150 places drawn by chance and at both ends: what is read is what was written, or it is refused."""
    path = tmp_path / "model.ckpt"
    saved(small_model(), small_data(), path)
    whole, expected = path.read_bytes(), read(path)
    places = [*np.random.default_rng(0).integers(len(whole), size=150), *range(20), *range(len(whole) - 50, len(whole))]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(place) % 8]) + whole[place + 1 :])
        try:
            found = read(path)
        except UserError:
            refused += 1
        else:
            assert found["epoch"] == expected["epoch"] and found["model"] == expected["model"], place
            assert all(torch.equal(found["state_dict"][key], value) for key, value in expected["state_dict"].items()), (
                place
            )
    assert refused > 100


def test_a_write_that_fails_leaves_the_file_before_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFile().save_checkpoint({"epoch": 1, "state_dict": {"weight": torch.arange(5)}}, path)

    def full_disk(checkpoint, file):
        file.write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match="last.ckpt: .*No space left on device.*hydra.run.dir"):
        CheckpointFile().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
