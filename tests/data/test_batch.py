from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device

from transfer_learning.data.augmentation import Augmentation
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.batch import Batch, SplitDataset, features_from_rows, features_to_rows, prepare
from transfer_learning.utilities import hardware

on_each_device = pytest.mark.parametrize("device", [None, torch.device("cpu")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 8, 3, 2)])
def test_features_come_back_from_rows_as_they_were(dtype, shape):
    features = torch.randn(shape).to(dtype)
    rows = features_to_rows(features)
    back = features_from_rows(torch.from_numpy(np.ascontiguousarray(rows)))
    assert isinstance(rows, np.ndarray) and len(rows) == 5
    assert torch.equal(back, features) and back.dtype == dtype
    if len(shape) == 4:
        assert rows.shape == (5, 3, 2, 8) and back.is_contiguous(memory_format=torch.channels_last)


def in_epoch(dataset, epoch):
    dataset.sampler = SimpleNamespace(epoch=epoch)
    return dataset


@on_each_device
def test_a_batch_has_the_chosen_version_of_each_image(device):
    array = np.concatenate([np.arange(6.0, dtype=np.float32)[:, None] + 10 * k for k in range(3)])
    dataset = SplitDataset(
        array,
        np.arange(18).reshape(3, 6),
        np.arange(100, 106),
        np.arange(6),
        choose=lambda epoch: (np.arange(6) + epoch) % 3,
        is_features=True,
        device=device,
    )
    assert len(dataset) == 6
    batch = in_epoch(dataset, 0).__getitems__([5, 0, 4])
    assert batch.inputs.flatten().tolist() == [25, 0, 14]
    batch = in_epoch(dataset, 1).__getitems__([5, 0, 4])
    assert batch.inputs.flatten().tolist() == [5, 10, 24] and batch.targets.tolist() == [5, 0, 4]
    assert batch.indices.tolist() == [105, 100, 104] and batch.is_features and batch.parameters == ()


@on_each_device
def test_a_batch_has_its_own_images_targets_indices_and_parameters(device):
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    rows, labels = np.array([7, 2, 5, 0]), np.array([1, 0, 0, 1])

    def sample(epoch):
        return np.arange(28, dtype=np.float32).reshape(4, 7) + epoch, np.full((4, 2), epoch, dtype=np.float32)

    dataset = SplitDataset(images, rows[None], rows, labels, sample=sample, device=device)
    images_before = images.copy()
    if device is not None:
        images[:] = 0  # the dataset has a copy
    batch = in_epoch(dataset, 0).__getitems__([3, 1])
    assert np.array_equal(batch.inputs.numpy(), images_before[[0, 2]]) and batch.inputs.dtype == torch.uint8
    assert batch.targets.tolist() == [1, 0] and batch.indices.tolist() == [0, 2] and not batch.is_features
    first, second = batch.parameters
    assert first[:, 0].tolist() == [21, 7] and second.tolist() == [[0, 0], [0, 0]]
    first, second = in_epoch(dataset, 3).__getitems__([3, 1]).parameters
    assert first[:, 0].tolist() == [24, 10] and second.tolist() == [[3, 3], [3, 3]]


@on_each_device
def test_a_batch_of_features_has_indices_of_images_and_not_rows_of_the_array(device):
    """Features of all splits are in one array, in the order in which they were computed."""
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    rows, indices, labels = np.array([[13, 2, 19, 4, 0]]), np.array([30, 7, 11, 52, 8]), np.array([0, 1, 1, 0, 1])
    dataset = SplitDataset(array, rows, indices, labels, is_features=True, device=device)
    for positions in ([0, 1, 2, 3, 4], [4, 2, 0], [3]):
        batch = dataset.__getitems__(positions)
        assert np.array_equal(batch.inputs.numpy(), array[rows[0][positions]])
        assert batch.indices.tolist() == indices[positions].tolist() and batch.indices.dtype == torch.int64
        assert batch.targets.tolist() == labels[positions].tolist()


def test_features_are_not_prepared():
    batch = Batch(torch.rand(2, 5), torch.tensor([0, 1]), torch.tensor([4, 7]), is_features=True)
    assert prepare(batch, Augmentation([])) is batch


def test_prepared_images_are_floats_and_the_rest_of_the_batch_stays():
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([0, 1]), torch.tensor([4, 7]))
    prepared = prepare(batch, Augmentation([]))
    assert torch.equal((prepared.inputs * 255).round().byte(), images.permute(0, 3, 1, 2))
    assert prepared.inputs.dtype == torch.float32 and prepared.inputs.is_contiguous(memory_format=torch.channels_last)
    assert prepared.targets is batch.targets and prepared.indices is batch.indices and not prepared.is_features


@pytest.mark.parametrize("devices, layout", [(set(), torch.channels_last), ({"cpu"}, torch.contiguous_format)])
def test_what_a_network_gets_lies_in_memory_as_its_device_demands(monkeypatch, devices, layout):
    monkeypatch.setattr(hardware, "WITHOUT_CHANNELS_LAST", devices)
    images, codes = torch.randint(0, 256, (2, 6, 5, 3), dtype=torch.uint8), torch.tensor([0, 1])
    parameters = (torch.from_numpy(Affine().sample(2, np.random.default_rng(0))),)
    maps = features_from_rows(torch.rand(2, 6, 5, 8))
    for batch in (
        Batch(images, codes, codes),
        Batch(images, codes, codes, parameters),
        Batch(maps, codes, codes, is_features=True),
    ):
        inputs = prepare(batch, Augmentation([Affine()])).inputs
        assert inputs.shape[2:] == (6, 5) and inputs.is_contiguous(memory_format=layout) and inputs.ndim == 4
    assert torch.equal(inputs, maps)


@pytest.mark.parametrize("parameters", [(), (torch.rand(2, 3), torch.rand(2, 1))])
def test_lightning_moves_a_batch_as_it_would_move_its_tensors(parameters):
    batch = Batch(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.tensor([5, 7]), parameters, is_features=True)
    assert move_data_to_device(batch, torch.device("cpu")) is batch
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch) and moved.is_features
    expected = move_data_to_device([*batch[:3], *parameters], torch.device("meta"))  # a list of tensors
    found = [*moved[:3], *moved.parameters]
    assert [(each.shape, each.dtype, each.device) for each in found] == [
        (each.shape, each.dtype, each.device) for each in expected
    ]
