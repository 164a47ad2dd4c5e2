import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import functional

from transfer_learning.data.augmentation.erasing import Erasing
from transfer_learning.utilities.errors import ArgumentError


def sampled(count, **settings):
    return Erasing(**settings).sample(count, np.random.default_rng(0))


def test_rectangles_are_filled_as_torchvision_fills_them():
    images, targets = torch.rand(2, 3, 10, 8), torch.tensor([1, 0])
    boxes, colours = [(2, 1, 5, 4), (0, 0, 10, 3)], torch.rand(2, 3)  # top, left, height, width in pixels
    sides = [[t / 10, (t + h) / 10, left / 8, (left + w) / 8] for t, left, h, w in boxes]
    result, same = Erasing().apply(images, targets, torch.cat([torch.tensor(sides), colours], dim=1))
    expected = [functional.erase(i, *box, c[:, None, None]) for i, box, c in zip(images, boxes, colours)]
    assert torch.equal(result, torch.stack(expected)) and same is targets


def test_rectangles_are_distributed_as_torchvisions():
    """Where torchvision does not sample again: it does if a side would be as long as the image's."""
    torch.manual_seed(0)
    settings, image, own = dict(scale=(0.05, 0.3), ratio=(0.4, 2.5)), torch.empty(3, 400, 400), []
    for _ in range(3000):
        top, left, height, width, _ = transforms.RandomErasing.get_params(image, *settings.values(), value=[0.0])
        own.append([top / 400, (top + height) / 400, left / 400, (left + width) / 400])
    ours, theirs = sampled(20_000, probability=1, **settings)[:, :4], np.array(own)
    for described in (lambda s: s.T, lambda s: [(s[:, 1] - s[:, 0]) * (s[:, 3] - s[:, 2])]):
        for one, other in zip(described(ours), described(theirs)):
            quantiles = [np.quantile(each, [0.05, 0.25, 0.5, 0.75, 0.95]) for each in (one, other)]
            np.testing.assert_allclose(*quantiles, atol=0.025)


def test_share_of_erased_images_scale_ratio_and_position():
    parameters = sampled(20_000, probability=0.3, scale=(0.1, 0.2), ratio=(0.5, 2.0)).astype(float)
    height, width = parameters[:, 1] - parameters[:, 0], parameters[:, 3] - parameters[:, 2]
    erased = height > 0
    assert abs(erased.mean() - 0.3) < 0.015 and (width[~erased] == 0).all()
    area, ratio = (height * width)[erased], np.log(height[erased] / width[erased])
    np.testing.assert_allclose(np.quantile(area, [0, 0.5, 1]), [0.1, 0.15, 0.2], atol=3e-3)
    np.testing.assert_allclose(np.quantile(ratio, [0, 0.5, 1]), np.log([0.5, 1, 2]), atol=0.04)
    assert parameters.min() >= 0 and parameters.max() <= 1
    np.testing.assert_allclose(
        np.quantile(parameters[:, 4:], [0.1, 0.5, 0.9], axis=0), [[0.1] * 3, [0.5] * 3, [0.9] * 3], atol=0.02
    )


@pytest.mark.parametrize("height, width", [(20, 30), (7, 7)])
def test_images_that_are_not_erased_stay_as_they_are(height, width):
    images = torch.rand(4, 3, height, width)
    parameters = torch.from_numpy(sampled(4, probability=0))
    assert torch.equal(Erasing().apply(images, torch.zeros(4), parameters)[0], images)


def test_a_gray_level_is_used_for_all_rectangles():
    parameters = sampled(5, value=0.45)
    assert (parameters[:, 4:] == np.float32(0.45)).all()
    assert np.array_equal(parameters[:, :4], sampled(5)[:, :4])  # the rectangles are the same


def test_a_side_is_never_longer_than_the_images():
    parameters = sampled(500, probability=1, scale=(0.5, 1.0), ratio=(5.0, 9.0))
    assert (parameters[:, 0] == 0).all() and (parameters[:, 1] == 1).all()


@pytest.mark.parametrize(
    "settings", [{"probability": 1.5}, {"scale": [0.4, 0.1]}, {"scale": [0.0, 0.1]}, {"ratio": [-1, 2]}, {"value": 2}]
)
def test_ranges_without_a_meaning_are_refused(settings):
    (name,) = settings
    with pytest.raises(ArgumentError, match=f"^{name}=.*: expected"):
        Erasing(**settings)
