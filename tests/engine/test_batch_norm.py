from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.engine.batch_norm import (
    check_last_batch,
    check_synchronized,
    share_running_statistics,
    single_valued_batch_norm,
)
from transfer_learning.engine.training import train
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.resnet import SmallResNet
from transfer_learning.utilities.errors import ArgumentError

LEARNING = dict(unfreeze="all", batch_norm="train", unfreeze_at_epoch=0)


@pytest.mark.parametrize("batch_size, works", [(7, 6), (1, 2), (3, 2), (21, 20)])
def test_last_batch_of_one_image_is_refused_before_the_first_step(
    tmp_path, small_data, pretrained, quiet_trainer, monkeypatch, batch_size, works
):
    """ResNet-18 at 32 pixels, whose last maps are 1 x 1, and 22 images."""
    data, model = small_data((11, 5, 5), batch_size=batch_size), pretrained(**LEARNING)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(data, "store_features", None)
    message = f"^batch_size={batch_size}: expected another size, such as {works}: .* trainable.backbone.block5.*bn1"
    with pytest.raises(ArgumentError, match=message):
        train(data, model, trainer)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.network.training
    if batch_size == 7:  # it is an error of torch's, which the other size does not have
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            trainer.fit(model, datamodule=data)
        data, trainer = small_data((11, 5, 5), batch_size=works), quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
        assert np.isfinite(train(data, pretrained(**LEARNING), trainer)["test/loss"])


@pytest.mark.parametrize(
    "network_settings, trainer_settings",
    [
        ({"unfreeze": "all", "batch_norm": "frozen"}, {}),
        ({"unfreeze": None}, {}),
        (LEARNING, {"limit_train_batches": 3}),  # of 4
        (LEARNING, {"limit_train_batches": 0.9}),
    ],
)
def test_batch_of_one_image_that_does_no_harm_is_accepted(
    small_data, pretrained, quiet_trainer, network_settings, trainer_settings
):
    data, model = small_data((11, 5, 5), batch_size=7), pretrained(**network_settings)
    trainer = quiet_trainer(max_epochs=1, **trainer_settings)
    check_last_batch(data, model.network, trainer)
    trainer.fit(model, datamodule=data)


@pytest.mark.parametrize("size, refused", [(32, True), (128, False)])
def test_size_of_a_crop_is_that_of_training_images(tmp_path, small_data, classifier, quiet_trainer, size, refused):
    """The last maps of images of 64 pixels have several, those of crops of 32 have one."""
    data = small_data((11, 5, 5), batch_size=7, image_size=64, augment=True, augmentation=RandomResizedCrop(size=size))
    model = classifier(SmallResNet(2, 64, channels=[4] * 4, blocks=[1] * 4), 64, optimizer=torch.optim.SGD)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(ArgumentError, match="^batch_size=7: ") if refused else nullcontext():
        train(data, model, trainer)


@pytest.mark.parametrize(
    "backbone, refused", [("timm/test_efficientnet", "trainable.backbone.block2"), ("resnet18", "")]
)
def test_norms_with_an_activation_are_not_synchronized(backbone, refused):
    """torch's conversion would lose the activation."""
    network = Pretrained(2, 64, backbone, None, "block2")
    check_synchronized(network, SimpleNamespace(strategy=SimpleNamespace(_layer_sync=None)))
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False)
    with pytest.raises(ArgumentError, match=f"^sync_batchnorm=True: .*{refused}") if refused else nullcontext():
        check_synchronized(network, trainer)
    images = torch.rand(2, 3, 64, 64)
    before = network.eval()(images)
    is_same = torch.allclose(nn.SyncBatchNorm.convert_sync_batchnorm(network)(images), before, atol=1e-5)
    assert is_same != bool(refused)


def test_running_statistics_are_those_of_the_first_process(monkeypatch):
    network, first = (SmallResNet(2, 32, channels=[4], blocks=[1]) for _ in range(2))
    for value in first.buffers():
        value += 3
    of_first = dict(zip(network.buffers(), first.buffers(), strict=True))
    monkeypatch.setattr(torch.distributed, "broadcast", lambda value, src: value.copy_(of_first[value]))
    weights = [each.clone() for each in network.parameters()]
    share_running_statistics(network, SimpleNamespace(world_size=1))
    assert not any(map(torch.equal, network.buffers(), first.buffers()))
    share_running_statistics(network, SimpleNamespace(world_size=2))
    assert all(map(torch.equal, network.buffers(), first.buffers()))
    assert all(map(torch.equal, network.parameters(), weights))


def test_maps_of_several_pixels_are_enough():
    assert single_valued_batch_norm(SmallResNet(2, 32, channels=[4], blocks=[1]), 32) is None
    deep = SmallResNet(2, 32, channels=[4] * 4, blocks=[1] * 4)
    assert single_valued_batch_norm(deep, 32) == "trainable.10.body.1" and deep.training
    assert single_valued_batch_norm(deep.eval(), 32) == "trainable.10.body.1"  # it will be in training mode
    assert not any(each.training for each in deep.modules())


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_batches_of_each_device_are_those_of_torch(devices):
    """For many numbers of images and sizes: refused if a batch of torch's own sampler has one image."""
    network = SmallResNet(2, 8, channels=[2, 2], blocks=[1, 1])
    for count in range(devices, 25):
        for size in range(1, count // devices + 1):
            data = SimpleNamespace(
                splits={"train": np.arange(count)},
                batch_size=size * devices,
                training_size=8,
            )
            trainer = SimpleNamespace(world_size=devices, limit_train_batches=1.0)
            try:
                check_last_batch(data, network, trainer)
                refused = None
            except ArgumentError as error:
                refused = error
            assert (refused is not None) == (1 in batch_sizes(count, size, devices)), (count, size)
            if refused and "such as" in str(refused):
                works = int(str(refused).partition("such as ")[2].partition(":")[0])
                assert 1 not in batch_sizes(count, works // devices, devices) and works <= count


def batch_sizes(count, size, devices):
    sampler = DistributedSampler(range(count), devices, 0)
    return [len(batch) for batch in DataLoader(range(count), size, sampler=sampler)]


def test_statistics_with_accumulated_gradients_are_those_of_a_plain_loop(small_data, classifier, quiet_trainer):
    def network():
        torch.manual_seed(0)
        return SmallResNet(2, 32, channels=[4, 8], blocks=[1, 1])

    data, model, reference = small_data(batch_size=7), classifier(network(), optimizer=SGD), network()
    quiet_trainer(max_epochs=2, accumulate_grad_batches=3).fit(model, datamodule=data)
    optimizer, loader = SGD(reference.parameters()), data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for index, batch in enumerate(loader):  # of 7, 7, 7 and 3 images; the last one is a step of its own
            batch = data.on_after_batch_transfer(batch)
            logits = reference(batch.inputs)[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, batch.targets.float())
            (loss / (3 if index < 3 else 1)).backward()
            if index >= 2:
                optimizer.step()
                optimizer.zero_grad()
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key)
    assert model.network.state_dict()["trainable.1.num_batches_tracked"] == 8


SGD = partial(torch.optim.SGD, lr=0.1)
