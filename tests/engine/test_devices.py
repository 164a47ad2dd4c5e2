"""Devices that this machine may lack."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from transfer_learning.data.augmentation import Augmentation
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.color_jitter import ColorJitter
from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.augmentation.warp import _centres
from transfer_learning.data.batch import Batch, SplitDataset, prepare
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.finite import FiniteLosses
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.engine.training import frozen_part
from transfer_learning.models.cnn import CNN
from transfer_learning.optim.rmsprop import RMSprop
from transfer_learning.utilities import hardware

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake():
    """Tensors without numbers on a GPU that need not exist. Mixed devices and values that are read back raise."""
    if torch.__version__ < (2, 7):
        pytest.skip("fake tensors of torch 2.6 on a GPU need its driver")
    with FakeTensorMode() as mode:
        yield mode
    _centres.cache_clear()


@pytest.mark.parametrize("read", [bool, float, lambda value: torch.ones(3) + value.expand(3)])
def test_fake_tensors_refuse_what_a_gpu_refuses_or_waits_for(fake, read):
    with pytest.raises(
        Exception, match="_local_scalar_dense|cpu, cuda:0|cuda:0, cpu|cuda:0 and cpu|cpu and cuda:0|different devices"
    ):
        read(torch.ones((), device=CUDA))


@pytest.mark.parametrize("views", [False, True])
def test_a_split_on_a_gpu_is_indexed_there(fake, views):
    rows = np.arange(12).reshape(2, 6)
    dataset = SplitDataset(
        np.zeros((12, 8, 8, 3), np.uint8),
        rows if views else rows[:1],
        np.arange(6),
        np.arange(6),
        sample=None if views else lambda epoch: [np.zeros((6, 7), np.float32)],
        choose=(lambda epoch: np.ones(6, np.int64)) if views else None,
        device=CUDA,
    )
    batch = dataset.__getitems__([0, 3, 2])
    tensors = [batch.inputs, batch.targets, batch.indices, *batch.parameters]
    assert {each.device for each in tensors} == {CUDA} and {len(each) for each in tensors} == {3}


def test_augmentation_stays_on_a_gpu(fake):
    steps = [Affine(), HorizontalFlip(), ColorJitter(hue=0.1), RandAugment(), RandomResizedCrop(size=12)]
    parameters = [torch.from_numpy(each).to(CUDA) for each in Augmentation(steps).sample(4, 0, 0)]
    images = torch.zeros(4, 16, 16, 3, dtype=torch.uint8, device=CUDA)
    codes = torch.zeros(4, dtype=torch.int64, device=CUDA)
    inputs = prepare(Batch(images, codes, codes, tuple(parameters)), Augmentation(steps)).inputs
    assert inputs.device == CUDA and inputs.shape == (4, 3, 12, 12)
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_losses_and_steps_of_the_optimizer_stay_on_a_gpu(fake):
    with CUDA:
        network = CNN(2, 32, [4, 8], [16], 0.3)
    images = torch.zeros(4, 3, 32, 32, device=CUDA).contiguous(memory_format=torch.channels_last)
    codes, finite = torch.zeros(4, dtype=torch.int64, device=CUDA), FiniteLosses(CUDA)
    losses = CrossEntropy().training_losses(network(images).float(), codes)
    finite.add(losses.mean().detach(), training=True)
    for parameter in (parameters := list(network.parameters())):
        parameter.grad = torch.zeros_like(parameter)
    RMSprop(parameters).step()
    assert {each.device for each in (losses, finite.all_finite, finite.steps, *parameters)} == {CUDA}


@pytest.mark.parametrize(
    "settings, features",
    [
        ({}, False),
        ({"augment": True, "balance": "sampler"}, False),
        ({"augment": True, "views": 2}, True),
        pytest.param({}, True, marks=pytest.mark.slow),
    ],
)
def test_training_from_a_split_on_the_device_is_that_from_memory_mapped_files(
    fit, small_data, small_model, pretrained, quiet_trainer, monkeypatch, settings, features
):
    def trained(device):
        monkeypatch.setattr(ImageDataModule, "_device_for_all_splits", lambda data: device)
        data, model = small_data(**settings), pretrained(unfreeze=None) if features else small_model(dropout=0.3)
        data.store_features(frozen_part(model, quiet_trainer()) if features else None)
        trainer = fit(model, data)
        assert data.train_dataloader().dataset.device == device
        return model, trainer.callback_metrics

    (mapped, expected), (resident, metrics) = trained(None), trained(torch.device("cpu"))
    assert {name: value.item() for name, value in metrics.items()} == {n: v.item() for n, v in expected.items()}
    for ours, theirs in zip(resident.parameters(), mapped.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("features", [False, True])
def test_where_channels_last_is_wrong_all_that_layers_get_and_all_weights_are_contiguous(
    fit, small_data, small_model, pretrained, quiet_trainer, monkeypatch, features
):
    monkeypatch.setattr(hardware, "WITHOUT_CHANNELS_LAST", {"cpu"})
    data, seen = small_data(augment=True, views=2 if features else 0), []
    model = pretrained(unfreeze="block5") if features else small_model()

    def look(layer, inputs):
        maps = [each for each in (*inputs, *layer.parameters(recurse=False)) if each.ndim == 4]
        seen.extend((type(layer).__name__, each.is_contiguous()) for each in maps)

    for layer in model.network.modules():
        layer.register_forward_pre_hook(look)
    data.store_features(frozen_part(model, quiet_trainer()) if features else None)
    fit(model, data, epochs=1)
    assert all(contiguous for _, contiguous in seen) and "Conv2d" in {name for name, _ in seen}
    assert model.predict(list(data.pixels[:2]), "cpu").probabilities.shape == (2, 2)
    assert all(contiguous for _, contiguous in seen)
