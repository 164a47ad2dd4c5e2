import numpy as np
import pytest
import torch

from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.utilities.errors import ArgumentError


def test_images_are_flipped_or_stay_as_they_are():
    images, targets = torch.rand(3, 3, 4, 5), torch.tensor([0, 1, 2])
    result, same = HorizontalFlip().apply(images, targets, torch.tensor([[1.0], [0.0], [1.0]]))
    assert torch.equal(result, torch.stack([images[0].flip(2), images[1], images[2].flip(2)])) and same is targets


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_probability(probability):
    parameters = HorizontalFlip(probability).sample(20_000, np.random.default_rng(0))
    assert parameters.shape == (20_000, 1) and set(parameters.ravel()) <= {0, 1}
    assert abs(parameters.mean() - probability) < 0.01


def test_a_probability_above_one_is_refused():
    with pytest.raises(ArgumentError, match="^probability=1.1: expected"):
        HorizontalFlip(1.1)
