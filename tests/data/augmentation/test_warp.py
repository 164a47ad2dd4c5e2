import numpy as np
import pytest
import torch
import torch.nn.functional as F

from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.augmentation.warp import clamp_to_centres, warp
from transfer_learning.utilities import hardware


def torchs(images, matrices, size):
    grid = F.affine_grid(matrices, [*images.shape[:2], *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


@pytest.mark.parametrize("count, height, width", [(1, 8, 8), (5, 48, 48), (7, 33, 50), (3, 150, 150)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_as_torchs_affine_grid_and_border(count, height, width, dtype, channels_last):
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(count, 3, height, width, dtype=dtype, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    matrices = torch.randn(count, 2, 3, dtype=dtype, generator=generator)
    for size in (None, (height + 3, width - 2)):
        result = warp(images, matrices, size)
        torch.testing.assert_close(result, torchs(images, matrices, size or (height, width)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("step", [Affine(), RandAugment(magnitude=30.0), RandomResizedCrop()])
def test_where_borders_cannot_be_repeated_positions_are_clamped_to_the_outermost_centres(step, monkeypatch):
    images, targets = torch.rand(20, 3, 15, 18), torch.zeros(20)
    parameters = torch.from_numpy(step.sample(20, np.random.default_rng(0)))
    expected, _ = step.apply(images, targets, parameters)
    monkeypatch.setattr(hardware, "WITHOUT_BORDER_PADDING", {"cpu"})
    monkeypatch.setattr(F, "grid_sample", without_border(F.grid_sample))
    result, _ = step.apply(images, targets, parameters)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def without_border(sample):
    def call(images, grid, padding_mode, align_corners):
        if padding_mode == "border":
            raise NotImplementedError("as torch's backend for MPS")
        return sample(images, grid, padding_mode=padding_mode, align_corners=align_corners)

    return call


def test_clamped_positions_are_those_of_pixels():
    grid = torch.tensor([[[[-5.0, 0.1], [0.3, 2.0]]]])
    clamped = clamp_to_centres(grid, torch.zeros(1, 3, 4, 10))
    torch.testing.assert_close(clamped, torch.tensor([[[[-0.9, 0.1], [0.3, 0.75]]]]))
