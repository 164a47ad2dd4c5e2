import numpy as np
import pytest
import torch

from transfer_learning.data.batch import Part, from_rows, to_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 8, 3, 2)])
def test_rows_come_back_as_they_were(dtype, shape):
    tensor = torch.randn(shape).to(dtype)
    rows = to_rows(tensor)
    back = from_rows(torch.from_numpy(np.ascontiguousarray(rows)))
    assert isinstance(rows, np.ndarray) and len(rows) == 5
    assert torch.equal(back, tensor) and back.dtype == dtype
    if len(shape) == 4:
        assert rows.shape == (5, 3, 2, 8) and back.is_contiguous(memory_format=torch.channels_last)


class Epoch:
    epoch = 0


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_a_batch_has_the_chosen_version_of_each_image(device):
    versions = [np.arange(6.0, dtype=np.float32)[:, None] + 10 * k for k in range(3)]
    part = Part(
        versions,
        np.arange(6),
        np.arange(6),
        choose=lambda epoch: (np.arange(6) + epoch) % 3,
        encoded=True,
        device=device,
    )
    part.sampler = Epoch()
    assert part.__getitems__([5, 0, 4]).x.flatten().tolist() == [25, 0, 14]
    part.sampler.epoch = 1
    batch = part.__getitems__([5, 0, 4])
    assert batch.x.flatten().tolist() == [5, 10, 24] and batch.labels.tolist() == [5, 0, 4] and batch.encoded


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_a_batch_has_its_own_images_labels_and_draws_wherever_they_lie(device):
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    rows, labels = np.array([7, 2, 5, 0]), np.array([1, 0, 0, 1])
    part = Part(
        [images], rows, labels, draw=lambda epoch: np.arange(28, dtype=np.float32).reshape(4, 7) + epoch, device=device
    )
    images_before = images.copy()
    if device is not None:
        images[:] = 0  # copied, so this is not seen
    part.sampler = Epoch()
    batch = part.__getitems__([3, 1])
    assert np.array_equal(batch.x.numpy(), images_before[[0, 2]]) and batch.x.dtype == torch.uint8
    assert batch.labels.tolist() == [1, 0] and batch.draws[:, 0].tolist() == [21, 7]
