"""What is refused is refused before any image is decoded."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.trainer.connectors.data_connector import _parse_num_batches
from pytorch_lightning.trainer.states import RunningStage
from torch import nn

from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.splits import PerClass
from transfer_learning.engine.checkpoint import KEYS
from transfer_learning.engine.checkpoint_file import CheckpointFile
from transfer_learning.engine.checks import check_not_reused, check_number_of_batches, check_resume, check_training
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.lr_finder import find_learning_rate
from transfer_learning.engine.training import train
from transfer_learning.models.network import Frozen, Network
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.optim.schedules import Cosine
from transfer_learning.utilities.errors import ArgumentError, UserError


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """small_data(**settings): 24 + 10 + 10 cartoons at 32 x 32 that cannot be decoded."""

    def fail(*arguments):
        raise AssertionError("images were decoded")

    def make(**settings):
        settings = {"batch_size": 8, "cache_dir": tmp_path / "cache"} | settings
        return ImageDataModule(Cartoons(12, 5, 5), PerClass(12, 5, 5), Preprocessing(32), **settings)

    monkeypatch.setattr("transfer_learning.data.datamodule.stored_pixels", fail)
    return make


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"limit_train_batches": 0}, "limit_train_batches=0: expected more than 0"),
        ({"limit_val_batches": 0}, "limit_val_batches=0: expected more than 0"),
        ({"limit_test_batches": 0}, "limit_test_batches=0: expected more than 0"),
        ({"limit_train_batches": 0.1}, "limit_train_batches=0.1: it leaves none of 4 batches; expected 0.25 or more"),
        ({"limit_test_batches": 0.4}, "limit_test_batches=0.4: it leaves none of 2 batches; expected 0.5 or more"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches=0: expected more than 0"),
        ({"val_check_interval": 5}, "val_check_interval=5: expected at most the 4 batches"),
        ({"val_check_interval": 3, "limit_train_batches": 2}, "val_check_interval=3: expected at most the 2 batches"),
        ({"max_epochs": 0}, "max_epochs=0: expected at least one epoch"),
        ({"max_steps": 0}, "max_steps=0: expected at least one epoch"),
        ({"max_steps": 3}, "max_steps=3: expected at least the 4 steps before the first validation"),
        ({"max_steps": 1, "accumulate_grad_batches": 3}, "max_steps=1: expected at least the 2 steps"),
        ({"max_steps": 7, "check_val_every_n_epoch": 2}, "max_steps=7: expected at least the 8 steps"),
        ({"max_steps": 1, "val_check_interval": 0.5}, "max_steps=1: expected at least the 2 steps"),
        (
            {"check_val_every_n_epoch": None, "val_check_interval": 13},
            "val_check_interval=13: expected at most the 12 batches of 3 epochs",
        ),
        ({"check_val_every_n_epoch": 4}, "check_val_every_n_epoch=4: expected at most max_epochs=3"),
        ({"callbacks": [EarlyStopping("val/foo")]}, "monitor='val/foo': no such metric"),
    ],
)
def test_settings_of_the_trainer(tmp_path, small_data, small_model, quiet_trainer, settings, message):
    trainer = quiet_trainer(**{"max_epochs": 3, "default_root_dir": tmp_path} | settings)
    with pytest.raises(ArgumentError, match=f"^{message}") as error:
        train(small_data(batch_size=6), small_model(), trainer)  # 24 images train, 10 validate and 10 test
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit, batches", [(0.25, 1), (0.99, 3), (1.0, 4), (3, 3), (9, 4)])
def test_limits_that_leave_batches_are_accepted(small_data, small_model, quiet_trainer, limit, batches):
    """The number of batches is Lightning's."""
    data, trainer = small_data(batch_size=6), quiet_trainer(limit_train_batches=limit, val_check_interval=batches)
    data.list_images()
    check_number_of_batches(data, trainer, ["train"])
    assert _parse_num_batches(RunningStage.TRAINING, 4, limit) == batches
    with pytest.raises(ArgumentError, match="^val_check_interval"):
        trainer = quiet_trainer(limit_train_batches=limit, val_check_interval=batches + 1)
        check_number_of_batches(data, trainer, ["train"])


def test_more_devices_than_images_of_a_split(small_data, quiet_trainer):
    """Lightning's sampler would stop in an assertion of the last device."""
    data = small_data(batch_size=22)
    data.list_images()
    check_number_of_batches(data, quiet_trainer(devices=10, strategy="ddp"), ["train", "val"])
    trainer = quiet_trainer(devices=11, strategy="ddp")
    check_number_of_batches(data, trainer, ["train"])
    with pytest.raises(ArgumentError, match="^devices=11: expected at most 10, the number of val images"):
        check_number_of_batches(data, trainer, ["train", "val"])


def test_settings_of_the_data(tmp_path, small_data, small_model, quiet_trainer):
    for settings, message in (
        ({"folds": 18, "fold": 1}, "folds=18: fewer images"),
        ({"batch_size": 25}, "batch_size=25: expected at most the 24 training images"),
        ({"exclude": tmp_path / "audit.csv"}, "exclude=.*audit.csv"),
    ):
        with pytest.raises(ArgumentError, match=f"^{message}"):
            train(small_data(**settings), small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path))


def test_checks_leave_a_loaded_model_in_its_mode(tmp_path, small_data, pretrained, quiet_trainer):
    model = pretrained(unfreeze="all", batch_norm="train").eval()
    message = "^batch_size=23: expected another size"  # of 24 training images, the last batch would have one
    with pytest.raises(ArgumentError, match=message):
        check_training(small_data(batch_size=23), model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    check_training(small_data(), model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    assert not any(each.training for each in model.modules())


@pytest.mark.parametrize("empty", ["train", "val", "test"])
def test_a_split_without_images(tmp_path, small_data, small_model, quiet_trainer, empty):
    data, trainer = small_data(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    divided = data.split
    data.split = lambda images: {**divided(images), empty: np.zeros(0, dtype=np.int64)}
    with pytest.raises(UserError, match=f"^there are no {empty} images; expected at least one in each of train, val"):
        train(data, small_model(), trainer)
    with nullcontext() if empty == "test" else pytest.raises(UserError, match="in each of train, val.$"):
        check_training(data, small_model(), trainer, test=False)


def test_schedules_and_groups_that_do_not_fit_the_training(tmp_path, small_data, pretrained, quiet_trainer):
    for model, epochs, message in (
        (pretrained(Cosine()), -1, "max_epochs=-1: a learning-rate schedule needs to know the end"),
        (pretrained(unfreeze="block5", unfreeze_at_epoch=2), 2, "unfreeze_at_epoch=2: .*never learn"),
    ):
        with pytest.raises(ArgumentError, match=f"^{message}"):
            train(small_data(), model, quiet_trainer(max_epochs=epochs, default_root_dir=tmp_path))


def test_a_checkpoint_of_another_network(tmp_path, small_data, small_model, quiet_trainer, monkeypatch):
    saved = {"state_dict": {"network.foo": torch.zeros(2)}, "model": {"frozen_weights": None}}
    saved |= {"optimizer_states": [], "callbacks": {}, "history": {}}
    monkeypatch.setattr("transfer_learning.engine.checks.read_checkpoint", {tmp_path / "last.ckpt": saved}.get)
    with pytest.raises(UserError, match="of another network"):
        trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
        train(small_data(), small_model(), trainer, resume=tmp_path / "last.ckpt")


def test_other_classes_or_preprocessing_in_the_data_than_in_the_model(tmp_path, small_data, small_model, quiet_trainer):
    model, trainer = small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    stretch, pad = Preprocessing(32), Preprocessing(32, resize="pad")
    for class_names, preprocessing, message in (
        (("dog", "cat"), stretch, "model: class 0 is dog, in the data cat"),
        (("cat",), stretch, "model: class 1 is absent, in the data dog"),
        (("cat", "dog", "owl"), stretch, "model: class 2 is owl, in the data absent"),
        (("cat", "dog"), pad, "model: has .*pad.*, the data .*stretch"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            train(small_data(), Classifier(model.network, class_names, preprocessing, model.optimizer), trainer)


@pytest.fixture
def resume(tmp_path, small_data, small_model, quiet_trainer):
    """resume(max_epochs, files, dirpath, **about): checks last.ckpt, which is of epoch 2, as is `best.ckpt`."""

    def check(max_epochs=3, files=("last", "best"), dirpath=tmp_path, **about):
        data, model = small_data(), small_model()
        best = ModelCheckpoint(dirpath, "best", monitor="val/acc", mode="max")
        data.list_images()
        saved = dict.fromkeys(KEYS) | {"class_names": ["cat", "dog"], "preprocessing": {"image_size": 32}} | about
        states = {best.state_key: {"best_model_path": "elsewhere/best.ckpt", "dirpath": "elsewhere"}}
        content = {"state_dict": model.state_dict(), "model": saved | {"network": {}}, "epoch": 1, "callbacks": states}
        content |= {"optimizer_states": [], "history": {"rows": [{}, {}]}}
        for name in files:
            torch.save(content, tmp_path / f"{name}.ckpt")
        settings = dict(enable_checkpointing=True, callbacks=[best], plugins=[CheckpointFile()])
        trainer = quiet_trainer(max_epochs=max_epochs, **settings)
        check_resume(data, model, trainer, tmp_path / "last.ckpt", content)

    return check


def test_a_checkpoint_of_other_classes_or_preprocessing(resume):
    resume()
    with pytest.raises(UserError, match=r"last\.ckpt: class 0 is dog, in the data cat"):
        resume(class_names=["dog", "cat"])
    with pytest.raises(UserError, match=r"last\.ckpt: has .*pad.*, the data .*stretch"):
        resume(preprocessing={"image_size": 32, "resize": "pad"})


@pytest.mark.parametrize("folder", ["other", None])
def test_a_resume_whose_checkpoints_go_to_another_folder(resume, tmp_path, folder):
    """Lightning would forget the best score: a worse epoch would replace the best one."""
    with pytest.raises(ArgumentError, match=r"^dirpath=.*expected that of the checkpoints of .*last\.ckpt: "):
        resume(dirpath=folder and tmp_path / folder)


def test_a_best_epoch_that_is_missing_or_after_the_end(resume):
    with pytest.raises(UserError, match=r"/best\.ckpt: no such checkpoint, and it has the best"):
        resume(files=["last"])
    resume(files=["last", "best-v1"])  # the process was killed between the new best.ckpt and last.ckpt
    resume(max_epochs=2)
    resume(max_epochs=-1)
    with pytest.raises(ArgumentError, match=r"^max_epochs=1: .*best\.ckpt is of epoch 2; expected 2 or more"):
        resume(max_epochs=1)


def test_a_trainer_and_callbacks_of_another_training(tmp_path, small_data, small_model, quiet_trainer, monkeypatch):
    checkpoint, stop = ModelCheckpoint(tmp_path, monitor="val/acc", mode="max"), EarlyStopping("val/loss")
    settings = dict(max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=True)
    trainer = quiet_trainer(callbacks=[checkpoint, stop], **settings)
    check_not_reused(trainer, {})
    for place, name, value, key in (
        (trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total, "completed", 4, ""),
        (checkpoint, "best_model_path", "best.ckpt", checkpoint.state_key),
        (checkpoint, "last_model_path", "last.ckpt", checkpoint.state_key),
        (stop, "best_score", torch.tensor(0.5), stop.state_key),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            kind = type(place).__name__ if key else "Trainer"
            with pytest.raises(UserError, match=f"^this {kind} has taken part in another training"):
                train(small_data(), small_model(), trainer)
            check_not_reused(trainer, {"callbacks": {key: {}}})  # which replaces the state
            if key:
                with pytest.raises(UserError, match=kind):
                    check_not_reused(trainer, {"callbacks": {"another": {}}})


@pytest.mark.parametrize("views", [0, 2])
def test_smaller_training_images_are_refused_before_the_first_step_if_the_network_needs_its_size(
    tmp_path, small_data, small_model, pretrained, classifier, quiet_trainer, views
):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    crop = RandomResizedCrop(size=24)
    data = small_data(augment=True, augmentation=[crop], views=views)
    transformer = classifier(Pretrained(2, 32, "vit_b_32", weights=None), optimizer=None) if not views else None
    for model in filter(None, [small_model(), pretrained(backbone="vgg11", pool="none"), transformer]):
        with pytest.raises(ArgumentError, match="^size=24: the network accepts only images of 32 pixels, leave it out"):
            train(data, model, trainer)
    assert trainer.global_step == 0


def test_compile_needs_a_compiler(tmp_path, small_data, small_model, quiet_trainer):
    from torch._inductor import config  # CXX is read when it is imported

    torch.compiler.reset()
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(ArgumentError) as error:
        train(small_data(), small_model(), trainer, compile=True)
    message = str(error.value)
    assert message.startswith("compile=True: torch cannot compile for cpu (InvalidCxxCompiler: ")
    assert "no-such-compiler" in message and "\n" not in message


def test_a_gpu_that_torch_has_no_code_for(tmp_path, small_data, small_model, quiet_trainer, monkeypatch):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    for search in (train, find_learning_rate):
        with pytest.raises(ArgumentError, match="^accelerator='cuda': the Tesla V100 has compute capability 7.0"):
            search(small_data(), small_model(), trainer)


class OwnNetwork(Network):
    def __init__(self, num_classes, image_size, arguments):
        layers = nn.Flatten(), nn.Linear(3 * image_size**2, 1)
        super().__init__(Frozen(), nn.Sequential(*layers), arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "missing a required argument: 'num_classes'"),
        ({"num_classes": 2, "image_size": 32, "arguments": {}, "width": 1}, "unexpected keyword argument 'width'"),
        ({"num_classes": 2, "image_size": 32, "arguments": {}}, None),
    ],
)
def test_arguments_that_cannot_rebuild_a_network(tmp_path, small_data, classifier, quiet_trainer, arguments, message):
    model = classifier(OwnNetwork(2, 32, arguments), optimizer=torch.optim.SGD)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(UserError, match=f"^the network OwnNetwork: .*{message}") if message else nullcontext():
        check_training(small_data(), model, trainer)
